"""Runs HAProxy with the recipe's configuration in front of two stand-ins for stores, and checks that it sends requests only to
the primary.

    haproxy.py CONFIGURATION
"""

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time


class Store:
    """A stand-in that answers as a primary or as a standby, and with its name."""

    def __init__(self, name):
        self.is_primary, self.asked, self.clients = False, [], []
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("content-length", 0))
                self.rfile.read(length)
                ready = self.path == "/ready?role=primary"
                if not ready:
                    store.asked.append(self.path)
                    store.clients.append(self.headers.get_all("x-forwarded-for"))
                body = name.encode()
                self.send_response(200 if store.is_primary or not ready else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # HAProxy closes the connection once it has read the status.
        self.server.handle_error = lambda *_: None
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def ask(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    forged = {"X-Forwarded-For": "198.51.100.1"}
    connection.request(method, path, b"{}" if method == "POST" else None, forged)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.getheader("retry-after")


def wait(what, holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def reached(port):
    try:
        return ask(port, "POST", "/rpc/add_widget")[:2]
    except OSError:
        return 0, ""


def main(configuration):
    one, other = Store("one"), Store("other")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    addresses = {"API_LISTEN": f"127.0.0.1:{port}", "API_ONE": one.address, "API_OTHER": other.address}
    environment = os.environ | addresses
    checked = subprocess.run(["haproxy", "-c", "-f", configuration], env=environment, capture_output=True, text=True)
    assert checked.returncode == 0 and "WARNING" not in checked.stderr, checked.stderr
    proxy = subprocess.Popen(["haproxy", "-db", "-f", configuration], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait("HAProxy answers", lambda: reached(port)[0])
        # HAProxy assumes that a server is up until it has checked it.
        wait("HAProxy notices that there is no primary", lambda: reached(port)[0] == 503)
        status, text, again = ask(port, "POST", "/rpc/add_widget")
        assert (status, json.loads(text)["code"], again) == (503, "WG503", "1"), (status, text, again)
        for first, second in ((one, other), (other, one)):
            first.is_primary = True
            name = "one" if first is one else "other"
            wait(f"requests go to {name}", lambda: reached(port) == (200, name))
            second.asked.clear()
            for _ in range(20):
                # On a busy machine HAProxy may consider the primary down, but it must never send a request to the other store.
                status, text = reached(port)
                assert status == 503 or text == name, (status, text)
                assert ask(port, "GET", "/widgets")[0] in (200, 503)
            assert not second.asked, second.asked
            first.is_primary = False
            wait("requests no longer go to a store that is not the primary", lambda: reached(port)[0] == 503)
        one.is_primary = True
        wait("requests go to one", lambda: reached(port) == (200, "one"))
        one.asked.clear()
        for path in ("/replication?from=copy", "/replication/hand-over", "/%72eplication/promote", "/metrics", "/backup"):
            status, text, _ = ask(port, "GET", path)
            assert (status, json.loads(text)["code"]) == (404, "PGRST125"), (path, status, text)
        assert not one.asked, one.asked
        for store in (one, other):
            assert store.clients and all(each == ["127.0.0.1"] for each in store.clients), store.clients
    finally:
        proxy.kill()
        proxy.wait()
    print("haproxy: requests go to the primary, whichever store it is, with the client's own address")


main(sys.argv[1])
