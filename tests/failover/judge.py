"""Records the answers to operations and to /ready over time, and measures for how long the two disagree."""

import http.client
import json
import threading
import time

EVERY = 0.1


class Probe:
    """Sends additions and requests /ready, each ten times a second, even while earlier requests are not answered."""

    def __init__(self, port):
        self.port, self.is_probing = port, True
        # Each is (sent, answered, status).
        self.operations, self.ready = [], []
        self.pending = []
        self.threads = [threading.Thread(target=self.run, args=(kind,), daemon=True) for kind in (self.add, self.ask)]
        for thread in self.threads:
            thread.start()

    def run(self, kind):
        number, due = 0, time.monotonic()
        while self.is_probing:
            number += 1
            thread = threading.Thread(target=kind, args=(number,), daemon=True)
            thread.start()
            self.pending.append(thread)
            due += EVERY
            time.sleep(max(0.0, due - time.monotonic()))

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def add(self, number):
        body = json.dumps({"widget_sn": f"probe-{id(self)}-{number}", "widget_name": "", "slots": ["P"]})
        sent = time.monotonic()
        status = self.call("POST", "/rpc/add_widget", body)
        self.operations.append((sent, time.monotonic(), status))

    def ask(self, _):
        sent = time.monotonic()
        status = self.call("GET", "/ready")
        self.ready.append((sent, time.monotonic(), status))

    def stop(self):
        self.is_probing = False
        for thread in [*self.threads, *self.pending]:
            thread.join()
        self.operations.sort()
        self.ready.sort()

    def first_success(self, after):
        """Returns when the first operation that was sent after this moment was acknowledged."""
        return min((answered for sent, answered, status in self.operations if status == 204 and sent >= after), default=None)

    def outage(self, began):
        """Returns the longest time between two acknowledgements of which the later one came after this moment."""
        acknowledged = sorted(answered for _, answered, status in self.operations if status == 204)
        gaps = [(later - earlier) for earlier, later in zip(acknowledged, acknowledged[1:]) if later >= began]
        return max(gaps, default=float("inf"))

    def wrongly_ready(self):
        """Returns the longest time during which every /ready was 200 but nothing was acknowledged."""
        acknowledged = [answered for _, answered, status in self.operations if status == 204]
        worst, began = 0.0, None
        for at, what in sorted([(answered, status) for _, answered, status in self.ready] + [(at, None) for at in acknowledged]):
            if what != 200:
                began = None
            elif began is None:
                began = at
            else:
                worst = max(worst, at - began)
        return worst

    def wrongly_unready(self):
        """Returns the longest time, from an acknowledgement on, during which every /ready was 503 but every operation was
        acknowledged."""
        answers = [(answered, "ready" if status == 200 else "unready") for _, answered, status in self.ready]
        answers += [(answered, "acknowledged" if status == 204 else "failed") for _, answered, status in self.operations]
        worst, began = 0.0, None
        for at, what in sorted(answers):
            if what in ("ready", "failed"):
                began = None
            elif what == "acknowledged":
                began = at if began is None else began
            elif began is not None:
                worst = max(worst, at - began)
        return worst
