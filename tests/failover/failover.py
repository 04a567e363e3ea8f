"""Runs the faults one after the other and prints the table: see `run`. With FAILOVER_LOGS=FOLDER, keeps all logs in
FOLDER."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import psycopg2

from cluster import Cluster, Watch, run, wait
from judge import Probe

# The service's default connect_timeout_ms: after this it gives up on a host that does not answer.
CONNECT = 2.0
# The service tries a new connection when a lookup takes half a second, and then tries the hosts, one of which does not answer.
# The last 1.5 s are for the intervals of the probes and for a busy machine.
UNREADY_WITHIN = 0.5 + CONNECT + CONNECT + 1.5
READY_WITHIN = 2.0
BACK_WITHIN = 10.0


HEADER = """
| fault | longest time without an acknowledgement, s | new primary after, s | its first acknowledgement to a direct client, s later | \
that of the service, s after that | acknowledged | of \
unknown fate | acknowledged and lost | wrong answers | /ready 200 while nothing was acknowledged, s | /ready 503 while all was, \
s | attempts at the old primary | of them acknowledged (none lost) |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


class Service:
    def __init__(self, binary, folder, url):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "service.log"
        command = [binary, "serve", "--store", url, "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, stdout=open(self.log, "ab"), stderr=subprocess.STDOUT)
        wait("the service to listen", lambda: "listens on" in self.log.read_text())


    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return "\n".join(line for line in lines if line.startswith(("widgets_batch_", "widgets_locked", "widgets_queue"))
                         and "bucket" not in line)


class Load:
    """`widgets load --during-crash` until it is stopped."""

    def __init__(self, binary, folder, port):
        self.report = folder / "load.json"
        self.text = folder / "load.txt"
        # As many changes of associations as of widgets, and many lookups. Each answer is predicted.
        command = [binary, "load", f"http://127.0.0.1:{port}", "--during-crash", "--duration", "1h", "--rate", "300",
                   "--connections", "48", "--timeout", "20s", "--warm-up", "0s", "--audit", "all", "--json", str(self.report),
                   "--mix", "add=30,remove=10,associate=30,dissociate=10,lookup=20"]
        self.process = subprocess.Popen(command, stdout=open(self.text, "wb"), stderr=subprocess.STDOUT)

    def stop(self):
        """Ends the load, waits for its audit, and returns its report."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(300)
        try:
            return json.loads(self.report.read_text())
        except OSError:
            raise SystemExit(f"failover: the load left no report: {self.text.read_text()}") from None


class Direct:
    """A direct client of the new primary. Its first acknowledgement shows that the database is back."""

    def __init__(self, node):
        self.node, self.acknowledged = node, None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.acknowledged is None:
            try:
                connection = psycopg2.connect(host=self.node.address, user="postgres", dbname="registry", connect_timeout=2)
                connection.autocommit = True
                connection.cursor().execute("SELECT widgets.add_widget(%s, '', '{P}')", (f"direct-{id(self)}-{time.monotonic()}",))
                if not connection.notices:
                    self.acknowledged = time.monotonic()
            except psycopg2.Error:
                time.sleep(0.02)


class Stubborn:
    """A client of one server that keeps sending additions to it, whichever node is the primary."""

    def __init__(self, node):
        self.node, self.is_asking, self.attempts, self.acknowledged = node, True, 0, []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.is_asking:
            try:
                connection = psycopg2.connect(host=self.node.address, user="postgres", dbname="registry", connect_timeout=2)
                connection.autocommit = True
                while self.is_asking:
                    self.attempts += 1
                    name = f"stubborn-{id(self)}-{self.attempts}"
                    del connection.notices[:]
                    connection.cursor().execute("SELECT widgets.add_widget(%s, '', '{P}')", (name,))
                    # A warning says that the commit may not be on a standby, so it does not count as acknowledged.
                    if not connection.notices:
                        self.acknowledged.append(name)
                    time.sleep(0.005)
            except psycopg2.Error:
                time.sleep(0.02)

    def stop(self):
        self.is_asking = False
        self.thread.join()


# Each fault returns a function that repairs it. Between the two, another node becomes the primary.

def killed(cluster, primary):
    """The machine dies: kill -9 for PostgreSQL, Patroni and etcd."""
    primary.kill()
    return primary.start


def postgres_killed(cluster, primary):
    """kill -9 for PostgreSQL only. Patroni restarts it."""
    primary.signal(signal.SIGKILL, primary.server_pids())
    return None


def paused(cluster, primary):
    """The machine freezes (SIGSTOP for all its processes), and resumes when another node is the primary."""
    primary.signal(signal.SIGSTOP)
    return lambda: primary.signal(signal.SIGCONT)


def postgres_paused(cluster, primary):
    """Only PostgreSQL freezes; its Patroni keeps running."""
    pids = primary.server_pids()
    primary.signal(signal.SIGSTOP, pids)
    return lambda: primary.signal(signal.SIGCONT, pids)


def cut_off(cluster, primary):
    """The machine loses its network without any error: packets are dropped."""
    run("ip", "link", "set", primary.interface, "nomaster")
    return lambda: run("ip", "link", "set", primary.interface, "master", "bridge")


def apart(cluster, primary):
    """The machine is cut off from the other nodes and from etcd, but the service can still reach it."""
    others = [node for node in cluster.nodes if node is not primary]
    for one, other in [(primary, node) for node in others] + [(node, primary) for node in others]:
        run("ip", "-n", one.name, "route", "add", "blackhole", f"{other.address}/32")

    def mend():
        for one, other in [(primary, node) for node in others] + [(node, primary) for node in others]:
            run("ip", "-n", one.name, "route", "del", "blackhole", f"{other.address}/32")
    return mend


def switched_over(cluster, primary):
    """A planned change of the primary with patronictl switchover."""
    run("patronictl", "-c", str(primary.file), "switchover", "--master", primary.name,
        "--candidate", cluster.standby().name, "--force")
    return None


FAULTS = {fault.__name__: fault for fault in
          (killed, postgres_killed, paused, postgres_paused, cut_off, apart, switched_over)}


def check(is_right, what):
    if not is_right:
        raise SystemExit(f"failover: FAILED: {what}")


def run_round(binary, folder, cluster, service, name):
    fault = FAULTS[name]
    primary = cluster.wait_until_whole()
    load, probe, watch = Load(binary, folder, service.port), Probe(service.port), Watch(cluster)
    wait("operations before the fault", lambda: sum(status == 204 for _, _, status in list(probe.operations)) > 30)
    began = time.monotonic()
    mend = fault(cluster, primary)
    may_restart = name == "postgres_killed"
    other = None if may_restart else primary.name
    wait("a new primary", lambda: watch.new_primary(began, other) or (may_restart and probe.first_success(began)))
    # There is no new primary if PostgreSQL restarted before Patroni noticed that it was down.
    new = watch.new_primary(began, other) or began
    direct = Direct(wait("the new primary", cluster.primary))
    wait("an acknowledged operation after it", lambda: probe.first_success(new), 60)
    stubborn = Stubborn(primary) if mend and name != "killed" else None
    direct.thread.join(60)
    check(direct.acknowledged, f"{name}: the new primary acknowledges nothing")
    # Give the new primary some operations before the old one returns: the return must not lose them.
    time.sleep(3)
    if mend:
        mend()
    cluster.wait_until_whole()
    time.sleep(1)
    if stubborn:
        stubborn.stop()
    metrics = service.metrics()
    probe.stop()
    watch.stop()
    report = load.stop()
    check(service.process.poll() is None, f"{name}: the service ended: {service.log.read_text()[-2000:]}")
    now = cluster.primary()
    if stubborn:
        have = cluster.sql(now, "SELECT serial_number FROM widgets.widgets WHERE serial_number LIKE 'stubborn-%'", "registry")
        missing = set(stubborn.acknowledged) - set(have.split())
        check(not missing, f"{name}: the old primary acknowledged {len(missing)} operations that are gone: {sorted(missing)[:3]}")
    return judge_round(name, report, probe, began, new, direct, stubborn, metrics)


def judge_round(name, report, probe, began, new, direct, stubborn, metrics):
    """Checks the results of a round, and returns its row of the table."""
    audit = report["audit"]
    outcomes = {}
    for stretch in report["stretches"]:
        for kind in stretch["kinds"].values():
            for outcome, count in kind["outcomes"].items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
    wrong = sum(stretch["wrong"] for stretch in report["stretches"])
    lost = sum(audit[key] for key in ("acknowledged_but_lost", "refused_but_applied", "asymmetric", "partly_applied", "altered",
                                      "unreadable"))
    database = direct.acknowledged - new
    # The time of the service alone, without the time that the database needs to find a standby and to accept writes.
    back = max(0.0, probe.first_success(new) - direct.acknowledged)
    ready, unready = probe.wrongly_ready(), probe.wrongly_unready()
    row = [name, f"{probe.outage(began):.1f}", f"{new - began:.1f}", f"{database:.1f}", f"{back:.1f}", str(outcomes.get("ok", 0)),
           str(outcomes.get("WG505", 0)), str(audit["acknowledged_but_lost"]), str(wrong), f"{ready:.1f}", f"{unready:.1f}",
           str(stubborn.attempts) if stubborn else "", str(len(stubborn.acknowledged)) if stubborn else ""]
    defects = [what for is_wrong, what in [
        (lost, f"the audit found {lost} faults: {audit['examples'][:3]}"),
        (wrong, f"{wrong} answers were wrong"),
        (back > BACK_WITHIN, f"{back:.1f} s from the database's first acknowledgement to the service's"),
        (ready > UNREADY_WITHIN, f"/ready was 200 for {ready:.1f} s while nothing was acknowledged"),
        (unready > READY_WITHIN, f"/ready was 503 for {unready:.1f} s while everything was acknowledged"),
        (not outcomes.get("ok"), "nothing was acknowledged at all"),
    ] if is_wrong]
    print("| " + " | ".join(row) + " |", flush=True)
    if os.environ.get("FAILOVER_LOGS"):
        print(metrics)
        print("\n".join(f"{sent - began:.2f} {answered - sent:.2f} {status}" for sent, answered, status in probe.operations))
    return [f"{name}: {defect}" for defect in defects]


def main():
    binary, names = sys.argv[1], sys.argv[2:] or list(FAULTS)
    for name in names:
        if name not in FAULTS:
            raise SystemExit(f"failover: {name} is no fault; there are {', '.join(FAULTS)}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="widgets-failover-"))
    # In memory: the test cuts no power, and other writers on a disk would affect the measurements.
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", str(folder))
    try:
        cluster = Cluster(folder)
        cluster.sql(cluster.primary(), "CREATE DATABASE registry")
        run(binary, "migrate", "--store", cluster.url("postgres"))
        service = Service(binary, folder, cluster.url("authenticator"))
        print("Patroni, etcd, three PostgreSQL servers and the service are running", flush=True)
        print(HEADER, flush=True)
        defects = [defect for name in names for defect in run_round(binary, folder, cluster, service, name)]
        if defects:
            raise SystemExit("\n".join(["failover: FAILED:", *defects]))
        print("failover: nothing acknowledged was lost, and /ready was right")
    finally:
        kept = os.environ.get("FAILOVER_LOGS")
        if kept:
            for file in [*folder.glob("*.log"), *folder.glob("load.*"), *folder.glob("*/*.log")]:
                shutil.copy(file, pathlib.Path(kept) / "-".join(file.relative_to(folder).parts))
        run("umount", "--lazy", str(folder))
        folder.rmdir()


main()
