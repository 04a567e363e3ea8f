#!/usr/bin/env python3
"""Repeatedly kills the service under load with kill -9, while writers retry with their keys and subscribers resume.

    tests/changes/kills.py target/debug/widgets 100

Afterwards the feed of changes must have every accepted operation once and nothing else, every subscriber must have received
exactly that, and no key may have been applied twice. Exits with 1 if not. Needs only Python.
"""

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

WRITERS, SUBSCRIBERS = 8, 10
# Small, so that some kills happen while a segment is changed or a checkpoint is written.
SETTINGS = "--segment-bytes 65536 --queue-operations-max 16 --checkpoint-journal-bytes 65536".split()


class Run:
    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.writing, self.following = True, True
        self.accepted, self.wrong = [], []
        self.retried = self.replayed = 0
        self.told = [[] for _ in range(SUBSCRIBERS)]
        self.lock = threading.Lock()

    def start(self):
        listen = f"127.0.0.1:{self.port}"
        command = [self.binary, "serve", "--data-dir", self.directory, "--listen", listen, *SETTINGS]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def call(self, operation, body, key):
        """Sends an operation until it gets a definite answer."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{key}"'}
        again = False
        while True:
            try:
                connection = self.connect()
                connection.request("POST", f"/rpc/{operation}", json.dumps(body), headers)
                answer = connection.getresponse()
                answer.read()
                connection.close()
                if answer.status != 503:
                    with self.lock:
                        self.retried += again
                        self.replayed += answer.getheader("idempotency-replayed") is not None
                    return answer.status
            except (OSError, http.client.HTTPException):
                pass
            again = True
            time.sleep(0.02)

    def expect(self, status, operation, serial_number, key, name="x"):
        body = {"widget_sn": serial_number}
        if operation == "add_widget":
            body |= {"widget_name": name, "slots": ["P"]}
        given = self.call(operation, body, key)
        if given != status:
            with self.lock:
                self.wrong.append((operation, serial_number, key, given))

    def write(self, writer):
        chance, number = random.Random(writer), 0
        while self.writing:
            number += 1
            serial_number, key = f"w{writer}-{number}", f"{writer}-{number}"
            self.expect(204, "add_widget", serial_number, f"{key}-add")
            self.accept("add_widget", serial_number)
            if chance.random() < 0.4:
                self.expect(204, "remove_widget", serial_number, f"{key}-remove")
                self.accept("remove_widget", serial_number)
                # Retried with its key, the operation must not be applied again.
                self.expect(204, "add_widget", serial_number, f"{key}-add")
            elif chance.random() < 0.3:
                self.expect(409, "add_widget", serial_number, f"{key}-taken", "y")

    def accept(self, operation, serial_number):
        with self.lock:
            self.accepted.append((operation, serial_number))

    def follow(self, subscriber):
        told, events = self.told[subscriber], subscriber % 2 == 0
        while self.following:
            try:
                connection = self.connect()
                after = f"?after={told[-1]['position']}" if told else ""
                accept = "text/event-stream" if events else "application/x-ndjson"
                connection.request("GET", "/changes" + after, headers={"Accept": accept})
                answer = connection.getresponse()
                for line in answer if answer.status == 200 else []:
                    # The last line before a kill may be cut off.
                    if not line.endswith(b"\n") or not self.following:
                        break
                    data = line.removeprefix(b"data: ") if events else line
                    if data.strip() and (not events or data != line):
                        told.append(json.loads(data))
                connection.close()
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.02)

    def feed(self):
        changes, after = [], ""
        while True:
            connection = self.connect()
            connection.request("GET", "/changes?limit=1000" + after)
            answer = connection.getresponse()
            changes += json.load(answer)
            following = "&after=" + answer.getheader("next-position")
            connection.close()
            if following == after:
                return changes
            after = following


def main():
    binary, kills = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        run = Run(binary, directory + "/data")
        service = run.start()
        writers = [threading.Thread(target=run.write, args=(each,), daemon=True) for each in range(WRITERS)]
        subscribers = [threading.Thread(target=run.follow, args=(each,), daemon=True) for each in range(SUBSCRIBERS)]
        for thread in writers + subscribers:
            thread.start()
        chance = random.Random(1)
        for _ in range(kills):
            time.sleep(chance.uniform(0.3, 0.9))
            service.kill()
            service.wait()
            service = run.start()
        run.writing = False
        for thread in writers:
            thread.join()
        changes = run.feed()
        waited = time.monotonic()
        while any(len(told) < len(changes) for told in run.told) and time.monotonic() < waited + 30:
            time.sleep(0.1)
        run.following = False
        service.send_signal(signal.SIGTERM)
        service.wait()
    positions = [change["position"] for change in changes]
    told = [(change["operation"], change["widget_sn"]) for change in changes]
    failures = run.wrong[:5]
    if positions != sorted(set(positions)):
        failures.append("the positions do not ascend")
    if sorted(told) != sorted(run.accepted):
        failures.append(f"{len(run.accepted)} operations were accepted, but the feed has {len(told)} changes, "
                        f"{len(set(told))} of them different")
    for subscriber, got in enumerate(run.told):
        if got != changes:
            failures.append(f"subscriber {subscriber} received {len(got)} changes, which are not those of the feed")
    print(f"{kills} kills, {len(told)} operations accepted and reported to {SUBSCRIBERS} subscribers, "
          f"{run.retried} retried, {run.replayed} retries answered from the idempotency keys")
    for failure in failures:
        print("WRONG:", failure)
    sys.exit(1 if failures else 0)


main()
