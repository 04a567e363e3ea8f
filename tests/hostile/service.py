"""A `widgets serve` for the tests in this folder, and clients of it."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

POST = b"POST /rpc/add_widget HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def add(serial_number, name=b""):
    body = b'{"widget_sn":"%b","widget_name":"%b","slots":["P"]}' % (serial_number, name)
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def get(path):
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path


class Service:
    """A service that runs until `stop` or `kill`. Its log is in the folder."""

    def __init__(self, binary, folder, *arguments, scheme="http", **options):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WIDGETS_")}
        self.log = open(pathlib.Path(folder) / "log", "ab")
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{folder}/data", *arguments],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, **options,
        )
        for line in self.process.stdout:
            if found := re.search(r"listens on https?://([\d.]+):(\d+)", line):
                self.address = (found[1], int(found[2]))
                self.url = f"{scheme}://{found[1]}:{found[2]}"
                return
        self.kill()
        raise SystemExit(f"the service did not start: {(pathlib.Path(folder) / 'log').read_text()}")

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def most_mib(self):
        """Returns the highest resident memory since the start."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def log_bytes(self):
        return os.fstat(self.log.fileno()).st_size

    def stop(self):
        """Stops the service, and returns whether it shut down gracefully."""
        self.process.terminate()
        return self.process.wait(timeout=40) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()


class Connection:
    """A connection that is opened when it is first needed."""

    def __init__(self, address, source=""):
        self.address, self.source = address, source
        self.socket = None

    def ask(self, request, survives=True):
        """Returns the status and the body of the answer, or status 0 if the connection was cut before an answer."""
        if self.socket is None:
            self.socket = socket.create_connection(self.address, 20, (self.source, 0))
            self.file = self.socket.makefile("rb")
        try:
            return self._ask(request)
        except (ConnectionError, IndexError):
            survives = False
            return 0, b""
        finally:
            if not survives:
                self.close()

    def _ask(self, request):
        try:
            self.socket.sendall(request)
        except ConnectionError:
            pass  # The service may have answered before it had received everything.
        status = int(self.file.readline().split()[1])
        length = 0
        while line := self.file.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, self.file.read(length)

    def close(self):
        if self.socket is not None:
            self.file.close()
            self.socket.close()
            self.socket = None


class GoodClient:
    """Repeatedly adds and removes a widget until `stop`."""

    def __init__(self, address):
        self.address, self.waits, self.wrong, self.phases = address, [], [], []
        self.stopped = threading.Event()
        # A daemon, so that a failing test does not wait for it.
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        connection = Connection(self.address)
        remove = b'{"widget_sn":"good"}'
        remove = POST.replace(b"add_widget", b"remove_widget") + b"Content-Length: %d\r\n\r\n%b" % (
            len(remove), remove)
        while not self.stopped.is_set():
            for request in (add(b"good"), remove):
                start = time.monotonic()
                status, _ = connection.ask(request)
                self.waits.append(time.monotonic() - start)
                if status != 204:
                    self.wrong.append(status)
            time.sleep(0.005)
        connection.close()

    def phase(self, name):
        """Begins a new phase of the measurement."""
        self.phases.append((name, len(self.waits)))

    def stop(self):
        """Ends the client, prints its figures, and returns its failures."""
        self.stopped.set()
        self.thread.join()
        ends = [begin for _, begin in self.phases[1:]] + [len(self.waits)]
        for (name, begin), end_of_phase in zip(self.phases, ends):
            waits = sorted(self.waits[begin:end_of_phase]) or [0]
            print(f"  {name:<7} p99 {waits[int(len(waits) * 0.99)] * 1000:6.1f} ms of {len(waits)} requests")
        waits = sorted(self.waits)
        median, p99 = (waits[int(len(waits) * share)] * 1000 for share in (0.5, 0.99))
        print(f"good client: {len(waits)} requests, {len(self.wrong)} not applied, median {median:.1f} ms, "
              f"p99 {p99:.1f} ms, worst {waits[-1] * 1000:.0f} ms")
        if self.wrong:
            return [f"a good client was answered {sorted(set(self.wrong))}"]
        return []


def end(failures):
    """Prints the failures and ends the program, with status 1 if there are any."""
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


@contextlib.contextmanager
def served(binary, *arguments, **options):
    folder = tempfile.mkdtemp(prefix="widgets-siege-")
    service = Service(binary, folder, *arguments, **options)
    first = service.resident_mib(), service.log_bytes()
    try:
        yield service
    finally:
        if service.process.poll() is None:
            print(f"  memory {first[0]:.1f} MiB at first, {service.most_mib():.1f} MiB at most; "
                  f"{service.log_bytes() - first[1]} bytes of log")
        service.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def figures(service):
    """Prints the memory and the log that one of several attacks on a service took."""
    # Resets the highest resident memory.
    pathlib.Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")
    first = service.resident_mib(), service.log_bytes()
    yield
    if service.process.poll() is None:
        print(f"  memory {first[0]:.1f} MiB at first, {service.most_mib():.1f} MiB at most; "
              f"{service.log_bytes() - first[1]} bytes of log")


def beside_a_good_client(address, attack, pause=1):
    """Runs an attack beside a good client. Returns the attack's result and the good client's failures."""
    return beside(GoodClient(address), attack, pause)


def beside(good, attack, pause=1):
    """Does the same beside another kind of good client."""
    good.phase("before")
    time.sleep(pause)
    good.phase("during")
    result = attack()
    good.phase("after")
    time.sleep(pause)
    return result, good.stop()
