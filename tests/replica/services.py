"""Services on free ports of this machine, and a proxy between a client and the current primary. Needs only Python."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time

SETTINGS = ["--segment-bytes", "1048576", "--queue-operations-max", "64"]
# The first epoch of a store, before any promotion.
FIRST_EPOCH = "00000001"


def fail(why):
    sys.exit(f"{sys.argv[0].rsplit('/', 1)[-1]}: {why}")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Service:
    """A service on a data directory. `namespace` is its network namespace, and `host` is the address to which requests go."""

    def __init__(self, binary, directory, port, *arguments, host="127.0.0.1", listen=None, namespace=None, settings=SETTINGS):
        self.host, self.port, self.url, self.namespace = host, port, f"http://{host}:{port}", namespace
        command = [binary, "serve", "--data-dir", directory, "--listen", f"{listen or host}:{port}"]
        within = ["ip", "netns", "exec", namespace] if namespace else []
        self.log = open(f"{directory}.log", "ab")
        command = [*within, *command, *settings, *arguments]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait(f"the service on {directory}", self.is_up)

    def is_up(self):
        if self.process.poll() is not None:
            fail(f"the service ended with {self.process.returncode}: {open(self.log.name).read()}")
        return self.ask("GET", "/live")[0] == 200

    def ask(self, method, path, body=None):
        """Returns the status, the code and the position after the page, or status 0 if there is no answer."""
        try:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            return answer.status, text, answer.getheader("next-position")
        except (OSError, http.client.HTTPException):
            return 0, b"", None

    def position(self):
        """Returns the position after the newest entry of its journal."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        connection.request("GET", "/widgets/none")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.getheader("position")

    def is_primary(self):
        return self.ask("GET", "/ready?role=primary")[0] == 200

    def metric(self, name):
        for line in self.ask("GET", "/metrics")[1].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        fail(f"{self.url} has no metric {name}")

    def add(self, serial_number):
        body = json.dumps({"widget_sn": serial_number, "widget_name": "", "slots": ["P"]})
        return self.ask("POST", "/rpc/add_widget", body)

    def changes(self):
        """Returns the whole history, as pairs (epoch, change)."""
        changes, after = [], ""
        while True:
            status, text, after_this = self.ask("GET", f"/changes?limit=1000{after}")
            if status != 200:
                fail(f"/changes of {self.url} answers {status} {text}")
            page = json.loads(text)
            for change in page:
                epoch = change.pop("position").split("-")[1]
                changes.append((epoch, json.dumps(change)))
            if not page:
                return changes
            after = f"&after={after_this}"

    def kill(self):
        self.process.kill()
        self.process.wait()


class Proxy:
    """Accepts connections and forwards them to the current primary, as a load balancer does."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def carry(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass
        for each in (one, other):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def wait(what, holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            fail(f"{what}: not within {seconds} s")
        time.sleep(0.01)
