"""Three nodes of PostgreSQL under Patroni with etcd, each in a separate network namespace on one bridge. Patroni is
configured as in the Compose recipe (deployments/docker-compose/patroni/patroni.yml), except for addresses and sizes.

Needs root, and separate namespaces for networks, mounts and processes (`tests/failover/run` makes them).
"""

import http.client
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import yaml

NODES = ["one", "two", "three"]
HERE = "10.77.0.254"
POSTGRES = "/usr/lib/postgresql/15/bin"

RECIPE = pathlib.Path(__file__).parents[2] / "deployments/docker-compose/patroni/patroni.yml"
LOOP_WAIT = yaml.safe_load(RECIPE.read_text())["bootstrap"]["dcs"]["loop_wait"]
# Sizes for one machine that runs all nodes.
SIZES = {"shared_buffers": "64MB", "effective_cache_size": "256MB", "wal_buffers": "4MB", "max_wal_size": "1GB"}


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def wait(what, holds, seconds=120):
    """Waits until `holds` returns a true value, and returns that value."""
    until = time.monotonic() + seconds
    while True:
        held = holds()
        if held:
            return held
        if time.monotonic() > until:
            raise SystemExit(f"failover: {what}: not within {seconds} s")
        time.sleep(0.05)


class Node:
    """A machine: its network and its processes."""

    def __init__(self, folder, number):
        self.name, self.address = NODES[number], f"10.77.0.{number + 1}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self.interface = f"to-{self.name}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.interface, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", self.interface, "master", "bridge", "up")
        for command in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", self.name, *command.split())
        self.processes = {}
        self.file = self.folder / "patroni.yml"
        # Patroni reads YAML, and JSON is valid YAML.
        self.file.write_text(json.dumps(self.configuration(), indent=1))
        run("chown", "-R", "postgres:postgres", str(self.folder))

    def configuration(self):
        patroni = yaml.safe_load(RECIPE.read_text())
        patroni["name"] = self.name
        address = f"{self.address}:8008"
        patroni["restapi"] = {"listen": address, "connect_address": address}
        patroni["etcd"]["hosts"] = [f"10.77.0.{number + 1}:2379" for number in range(len(NODES))]
        if os.environ.get("FAILOVER_ETCD3"):
            # Uses etcd's version 3 API, to show what that costs: see the recipe.
            patroni["etcd3"] = patroni.pop("etcd")
        bootstrap = patroni["bootstrap"]
        del bootstrap["post_bootstrap"]
        bootstrap["dcs"]["postgresql"]["parameters"] |= SIZES
        address = f"{self.address}:5432"
        patroni["postgresql"] |= {
            "listen": address, "connect_address": address, "data_dir": str(self.folder / "data"), "bin_dir": POSTGRES,
            "pgpass": str(self.folder / "pgpass"), "parameters": {"unix_socket_directories": str(self.folder)},
            "pg_hba": ["local all all trust", "host all all 10.77.0.0/24 trust", "host replication all 10.77.0.0/24 trust"],
            "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"},
                               "rewind": {"username": "postgres"}}}
        return patroni

    def spawn(self, name, *command):
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(["ip", "netns", "exec", self.name, *command], stdout=log, stderr=log)

    def start(self):
        members = ",".join(f"{name}=http://10.77.0.{number + 1}:2380" for number, name in enumerate(NODES))
        clients, peers = f"http://{self.address}:2379", f"http://{self.address}:2380"
        self.spawn("etcd", "etcd", "--name", self.name, "--data-dir", str(self.folder / "etcd"),
                   "--enable-v2", "--listen-client-urls", clients, "--advertise-client-urls", clients,
                   "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", members,
                   # Long timeouts, because one machine runs everything.
                   "--heartbeat-interval", "300", "--election-timeout", "3000", "--log-level", "warn")
        self.spawn("patroni", "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--",
                   "patroni", str(self.file))

    def pids(self):
        found = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def signal(self, number, pids=None):
        for pid in self.pids() if pids is None else pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def postmaster(self):
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def server_pids(self):
        """Returns the process ids of the PostgreSQL server and its children."""
        return [pid for pid in self.pids() if command_of(pid) == "postgres"]

    def kill(self):
        """Kills all processes of the machine at once."""
        self.signal(signal.SIGKILL)
        for process in self.processes.values():
            process.wait()
        wait("all processes of the node to end", lambda: not self.pids())

    def get(self, path, seconds=2.0):
        """Returns the status and the body of Patroni's own answer, or status 0 if there is none."""
        connection = http.client.HTTPConnection(self.address, 8008, timeout=seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


def command_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Cluster:
    def __init__(self, folder):
        run("mount", "-t", "tmpfs", "none", "/run")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "addr", "add", f"{HERE}/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        self.nodes = [Node(folder, number) for number in range(len(NODES))]
        for node in self.nodes:
            node.start()
        self.wait_until_whole()

    def url(self, role):
        hosts = ",".join(node.address for node in self.nodes)
        return f"postgres://{role}@{hosts}/registry?sslmode=disable"

    def primary(self):
        """Returns the node that reports that it is the primary and holds the leader key, if any."""
        for node in self.nodes:
            if node.get("/primary", 0.5)[0] == 200:
                return node
        return None

    def members(self):
        for node in self.nodes:
            status, body = node.get("/cluster")
            if status == 200:
                return json.loads(body)["members"]
        return []

    def is_whole(self):
        members = self.members()
        roles = sorted(member["role"] for member in members)
        well = all(member["state"] in ("running", "streaming") and member.get("lag", 0) in (0, "0") for member in members)
        same = len({member.get("timeline") for member in members}) == 1
        return roles == ["leader", "replica", "sync_standby"] and well and same and self.primary()

    def wait_until_whole(self):
        """Waits until the cluster has been whole for three loops of Patroni. While the synchronous standby changes, there is
        none for a moment. A fault at that moment would have no successor, because no node may be promoted that could lack a
        commit."""
        since = None

        def is_settled():
            nonlocal since
            primary = self.is_whole()
            if not primary:
                since = None
                return None
            since = since or time.monotonic()
            return primary if time.monotonic() - since > 3 * LOOP_WAIT else None

        return wait("a primary, a synchronous standby and another standby", is_settled, 240)

    def standby(self):
        """Returns the synchronous standby."""
        for member in self.members():
            if member["role"] == "sync_standby":
                return next(node for node in self.nodes if node.name == member["name"])
        return None

    def sql(self, node, sql, database="postgres"):
        command = [f"{POSTGRES}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", node.address, "-U", "postgres",
                   "-d", database, "-c", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Watch:
    """Watches which node is the primary, and records when that changes."""

    def __init__(self, cluster):
        self.cluster, self.seen, self.is_watching = cluster, [], True
        self.threads = [threading.Thread(target=self.run, args=(node,), daemon=True) for node in cluster.nodes]
        for thread in self.threads:
            thread.start()

    def run(self, node):
        was = None
        while self.is_watching:
            status = node.get("/primary", 0.5)[0] == 200
            if status != was:
                self.seen.append((time.monotonic(), node.name, status))
                was = status
            time.sleep(0.05)

    def stop(self):
        self.is_watching = False
        for thread in self.threads:
            thread.join()

    def new_primary(self, after, other_than):
        """Returns when another node first reported that it is the primary."""
        times = [at for at, name, status in self.seen if status and at > after and name != other_than]
        return min(times) if times else None
