#!/usr/bin/env python3
"""Measures the CPU time per operation, summed over all servers, of a registry that Citus distributes over four workers with one
shard each, and compares it in the same run with one server without Citus. Batches are made in three ways: of operations in
random order, sent to the coordinator (mixed); of operations that concern the same one or two workers, sent to the coordinator
(formed); and of the same operations, sent to a worker (sent). Also reports the coordinator's share. Starts the servers; needs
Debian's postgresql with Citus 13 installed, but no build of widgets.

    bench/postgres/citus.py [--sizes 64,256,1024] [--rounds 3]

A home is the one or two workers that store the widgets of an operation. In each round, each way has enough widgets for at least
two batches of each home. Every operation must succeed, except in the step in which every operation must be refused. Each server
has one session, and only one call runs at a time. CPU time comes from the servers' schedstat, which counts nanoseconds.
"""

import argparse
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import os

HERE = pathlib.Path(__file__).resolve().parent
os.environ["PGOPTIONS"] = "-c client_min_messages=error"
MIGRATIONS = HERE / "../../crates/postgres/migrations"
POSTGRES = max(pathlib.Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"
WORKERS = 4
WAYS = ["one server", "mixed", "formed", "sent"]
SETTINGS = {
    "fsync": "off", "autovacuum": "off", "shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
    "max_prepared_transactions": "100", "max_worker_processes": "16", "listen_addresses": "127.0.0.1",
}
OF_CITUS = {
    "shared_preload_libraries": "citus", "citus.recover_2pc_interval": "5s", "citus.node_conninfo": "sslmode=disable",
    "citus.enable_statistics_collection": "off",
}
# PostgreSQL refuses to run as root.
AS = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.getuid() == 0 else []


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server with the database `registry`, and one session."""

    def __init__(self, folder, name, settings):
        self.data, self.port = folder / name, free_port()
        self.run("initdb", "--no-sync", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8",
                 "--locale=C.UTF-8")
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        self.run("pg_ctl", "-s", "-w", "-D", self.data, "-l", folder / f"{name}.log", "-o",
                 f"-p {self.port} -k {folder} {options}", "start")
        self.psql("CREATE DATABASE registry", database="postgres")
        self.session = None

    def run(self, program, *arguments):
        subprocess.run([*AS, POSTGRES / program, *arguments], check=True, stdout=subprocess.DEVNULL)

    def command(self, database):
        return [POSTGRES / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
                "-d", database]

    def psql(self, *statements, database="registry"):
        """Runs each statement in a separate transaction, and returns what they print."""
        text = ";\n".join(statements) + ";\n"
        return subprocess.run(self.command(database), input=text, check=True, text=True, stdout=subprocess.PIPE).stdout

    def ask(self, statements):
        """Runs the statements in the session, and waits for the last one."""
        if self.session is None:
            self.session = subprocess.Popen(self.command("registry"), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for statement in statements:
            self.session.stdin.write(f"{statement};\n")
        self.session.stdin.write("\\echo done\n")
        self.session.stdin.flush()
        while (line := self.session.stdout.readline()) != "done\n":
            if not line:
                raise SystemExit("citus.py: a session ended")

    def cpu_nanoseconds(self):
        """Returns the CPU time of all the server's processes, in nanoseconds. None of them ends during a measurement."""
        main = (self.data / "postmaster.pid").read_text().split()[0]
        children = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text().split()
        total = 0
        for process in [main, *children]:
            try:
                total += int(pathlib.Path(f"/proc/{process}/schedstat").read_text().split()[0])
            except FileNotFoundError:
                pass
        return total

    def stop(self):
        if self.session:
            self.session.kill()
            self.session.wait()
        subprocess.run([*AS, POSTGRES / "pg_ctl", "-s", "-w", "-D", self.data, "-m", "immediate", "stop"], check=False)


def migrate(server):
    files = [f"\\i {path}" for path in sorted(MIGRATIONS.glob("0*.sql"))]
    table = ("CREATE TABLE widgets.migrations (version integer PRIMARY KEY, name text, checksum text,"
             " applied_at timestamptz, oldest_program integer)")
    text = "\n".join(["BEGIN;", "SET LOCAL search_path = pg_catalog, pg_temp;",
                      "CREATE SCHEMA widgets;", table + ";", *files, "COMMIT;"])
    subprocess.run(server.command("registry"), input=text, check=True, text=True, stdout=subprocess.DEVNULL)


def distribute(coordinator, workers):
    coordinator.psql(f"SELECT citus_set_coordinator_host('127.0.0.1', {coordinator.port})",
                     *[f"SELECT citus_add_node('127.0.0.1', {worker.port})" for worker in workers])
    migrate(coordinator)
    text = (MIGRATIONS / "distribute.sql").read_text().replace("$shards", str(WORKERS))
    text = f"BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n{text}\nCOMMIT;\n"
    subprocess.run(coordinator.command("registry"), input=text, check=True, text=True, stdout=subprocess.DEVNULL)


class Names:
    """Hands out serial numbers of widgets that a given worker stores, each of them once."""

    def __init__(self, coordinator, workers):
        ports = {str(worker.port): number for number, worker in enumerate(workers)}
        rows = coordinator.psql(
            "SELECT shardid, nodeport FROM citus_shards WHERE table_name = 'widgets.widgets'::regclass").split()
        self.shards = {row.split("|")[0]: ports[row.split("|")[1]] for row in rows}
        self.coordinator, self.next, self.free = coordinator, 1, [[] for _ in workers]

    def take(self, worker, count):
        while len(self.free[worker]) < count:
            made = self.coordinator.psql(
                "SELECT get_shard_id_for_distribution_column('widgets.widgets', 'w' || n), 'w' || n"
                f" FROM generate_series({self.next}, {self.next + 199999}) n")
            self.next += 200000
            for line in made.split():
                shard, name = line.split("|")
                self.free[self.shards[shard]].append(name)
        names, self.free[worker] = self.free[worker][:count], self.free[worker][count:]
        return names


def homes():
    """Returns each home (the workers of two widgets) with its share of the operations that name two random widgets."""
    return [(one, two, 1 if one == two else 2) for one in range(WORKERS) for two in range(one, WORKERS)]


def batches_of(names, size, round_number):
    """Returns, by way and kind, the batches: each has the worker to which it is sent, and its two arrays. The pairs of each home,
    and the widgets of each worker, fill whole batches."""
    chance = random.Random(size * 100 + round_number)
    # At least 4,096 pairs.
    each = size * max(1, 256 // size)
    made = {}
    for way in WAYS:
        pairs = []
        for one, two, share in homes():
            left, right = names.take(one, each * share), names.take(two, each * share)
            pairs += [(one, two, *pair) for pair in zip(left, right)]
        chance.shuffle(pairs)
        widgets = [(one, left) for one, _, left, _ in pairs] + [(two, right) for _, two, _, right in pairs]
        chance.shuffle(widgets)
        first = [(one, left) for one, _, left, _ in pairs]
        second = [(two, right) for _, two, _, right in pairs]
        by_home = way in ("formed", "sent")
        kinds = {"all": split_widgets(widgets, size, by_home), "pairs": split_pairs(pairs, size, by_home)}
        # Of each pair, one widget is removed with its association, and then the other widget, which has none any more.
        kinds["remove associated"] = split_widgets(first, size, by_home)
        kinds["remove"] = split_widgets(second, size, by_home)
        made[way] = kinds
    return made


def split_widgets(widgets, size, by_home):
    groups = [[each for each in widgets if each[0] == worker] for worker in range(WORKERS)] if by_home else [widgets]
    batches = []
    for group in groups:
        for start in range(0, len(group) - size + 1, size):
            part = group[start:start + size]
            batches.append((part[0][0], [name for _, name in part], []))
    return batches


def split_pairs(pairs, size, by_home):
    groups = [[each for each in pairs if each[:2] == home[:2]] for home in homes()] if by_home else [pairs]
    batches = []
    for group in groups:
        for start in range(0, len(group), size):
            part = group[start:start + size]
            worker = part[0][len(batches) % 2]
            batches.append((worker, [each[2] for each in part], [each[3] for each in part]))
    return batches


def copy(server, way, kind, size, batches):
    lines = [f"{way}\t{kind}\t{size}\t{number}\t{{{','.join(sns1)}}}\t{{{','.join(sns2)}}}\n"
             for number, (_, sns1, sns2) in enumerate(batches)]
    text = "COPY public.batches FROM STDIN;\n" + "".join(lines) + "\\.\n"
    subprocess.run(server.command("registry"), input=text, check=True, text=True)


STEPS = [
    ("add", "all", "ok", "adds"), ("lookup", "all", "ok", "lookups"), ("associate", "pairs", "ok", "associations"),
    ("associate", "pairs", "WG003", "the same, refused"), ("part", "pairs", "ok", "removals of associations"),
    ("associate", "pairs", "ok", None), ("remove associated", "remove associated", "ok", "removals of associated widgets"),
    ("remove", "remove", "ok", "removals of widgets without"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="64,256,1024")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    if AS:
        shutil.chown(folder, "postgres", "postgres")
    servers = []
    try:
        measure(servers, folder, sizes, arguments.rounds)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder)


def measure(servers, folder, sizes, rounds):
    def start(name, settings):
        server = Server(folder, name, settings)
        servers.append(server)
        return server

    plain = start("plain", SETTINGS)
    cluster = [start(name, SETTINGS | OF_CITUS) for name in ["coordinator", *[f"worker{n + 1}" for n in range(WORKERS)]]]
    for node in cluster:
        node.psql("CREATE EXTENSION citus")
    coordinator, workers = cluster[0], cluster[1:]
    migrate(plain)
    distribute(coordinator, workers)
    for server in servers:
        server.psql("SET citus.enable_ddl_propagation = off" if server is not plain else "SELECT",
                    (HERE / "citus.sql").read_text().rstrip().rstrip(";"))
    names = Names(coordinator, workers)
    taken = {}
    for round_number in range(rounds + 1):
        for size in sizes:
            # The first round warms up sessions and caches.
            made = batches_of(names, size, round_number)
            ways = WAYS[round_number % 4:] + WAYS[:round_number % 4]
            for way in ways:
                for server in servers:
                    server.psql("TRUNCATE public.batches")
                on = {"one server": [plain], "sent": workers}.get(way, [coordinator])
                for kind, batches in made[way].items():
                    for server in on:
                        copy(server, way, kind, size, batches)
                for step, kind, wanted, title in STEPS:
                    calls = [[] for _ in on]
                    for number, (worker, sns1, _) in enumerate(made[way][kind]):
                        calls[worker if way == "sent" else 0].append(
                            f"SELECT public.run_batch('{way}', '{step}', {size}, {number}, '{wanted}')")
                    for server in on:
                        server.ask(["SELECT set_config('widgets.look_first', '0', false),"
                                    " set_config('widgets.lock_first', '0', false)"])
                    before = [server.cpu_nanoseconds() for server in servers]
                    for server, of_server in zip(on, calls):
                        server.ask(of_server)
                    each = [now - then for now, then in zip([server.cpu_nanoseconds() for server in servers], before)]
                    if title and round_number:
                        count = sum(len(batch[1]) for batch in made[way][kind])
                        all_of = each[0] if way == "one server" else sum(each[1:])
                        taken.setdefault((title, size, way), []).append(
                            (all_of / count / 1000, each[1] / count / 1000))
            for server in servers:
                server.psql("VACUUM ANALYZE widgets.widgets" if server in (plain, coordinator) else "SELECT")
    balance = coordinator.psql("SELECT widgets.halves_balance()").strip()
    left = coordinator.psql("SELECT count(*) FROM widgets.widgets").strip()
    if (balance, left) != ("0", "0"):
        raise SystemExit(f"citus.py: {left} widgets are left, and the balance is {balance}")
    report(taken, sizes)


def report(taken, sizes):
    titles = [title for *_, title in STEPS if title]
    median = lambda key, part: statistics.median(each[part] for each in taken[key])
    for size in sizes:
        print(f"\n| {size} a batch, µs an operation | {' | '.join(WAYS)} | mixed / sent | of the coordinator: mixed | formed | sent |")
        print("|---" * (len(WAYS) + 5) + "|")
        for title in titles:
            all_of = [median((title, size, way), 0) for way in WAYS]
            first = [median((title, size, way), 1) for way in WAYS[1:]]
            row = [f"{each:.1f}" for each in all_of] + [f"{all_of[1] / all_of[3]:.2f}"] + [f"{each:.1f}" for each in first]
            print(f"| {title} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
