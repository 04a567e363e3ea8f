"""Checks that every error that nginx itself generates has the form of the API's errors, including headers, and is correct
about operations: WG505 if the operation may have been applied, and Retry-After only if a retry is safe.

    nginx.py DEPLOYMENTS
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

ORIGIN = "Origin: https://page.example\r\n"
MEMBERS = ["code", "details", "hint", "message"]


# The beginning of a stream of changes, after which the service sends nothing for a while.
STREAM = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
    "Transfer-Encoding: chunked\r\n\r\nd\r\nretry: 1000\n\n\r\n"
)


class Upstream:
    """Stands in for the service: reads a part of each request and closes the connection without an answer. Only a request
    for changes gets an answer: the stream begins and stays open."""

    def __init__(self):
        self.streams = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def close(self):
        # Closing alone would not wake the thread that accepts.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            if connection.recv(1 << 16).startswith(b"GET /changes"):
                # Append before sending, because the test looks for the connection here once it has received the beginning.
                self.streams.append(connection)
                connection.sendall(STREAM.encode())
            else:
                connection.close()


def configuration(deployments, folder, port, upstream):
    """Installs in a folder what docs/deploy.md says, with the ports of this test."""
    ours = folder / "widgets"
    ours.mkdir()
    for name in ("maps.conf", "api.conf", "error.conf"):
        text = (deployments / "docker-compose/nginx" / name).read_text()
        text = text.replace("/etc/nginx/widgets", str(ours))
        # Lower limits, which the test can exceed: of connections,
        text = text.replace("limit_conn addresses 4096;", "limit_conn addresses 4;")
        # and of requests.
        text = text.replace("burst=10000", "burst=300").replace("rate=10000r/s", "rate=1r/s")
        (ours / name).write_text(text)
    site = (deployments / "systemd/nginx.conf").read_text().replace("/etc/nginx/widgets", str(ours))
    for old, new in (("127.0.0.1:80;", f"127.0.0.1:{port};"), ("127.0.0.1:3000;", f"127.0.0.1:{upstream};")):
        assert old in site, old
        site = site.replace(old, new)
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\ndaemon off;\n"
        f"events {{}}\nhttp {{\n    access_log off;\n{temporary}{site}}}\n"
    )


def raw(port, request):
    """Sends these bytes, and returns the status, the headers and the body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.encode())
        answer = connection.makefile("rb")
        status = int(answer.readline().split(b" ")[1])
        headers = {}
        while line := answer.readline().decode().strip().lower():
            name, value = line.split(": ", 1)
            headers[name] = value
        body = answer.read(int(headers["content-length"]))
    return status, headers, body.decode()


def check(name, answer, status, code):
    got, headers, body = answer
    try:
        error = json.loads(body)
    except ValueError:
        raise AssertionError(f"{name}: {got} and no JSON: {body[:200]}") from None
    assert (got, error["code"]) == (status, code), f"{name}: {got} {body}"
    assert list(error) == MEMBERS, f"{name}: {body}"
    assert headers["content-type"] == "application/json; charset=utf-8", f"{name}: {headers}"
    assert headers["proxy-status"] == f"postgrest; error={code.lower()}", f"{name}: {headers}"
    assert headers["x-request-id"], f"{name}: {headers}"
    assert ("retry-after" in headers) == (code in ("WG503", "WG429")), f"{name}: {headers}"
    assert headers["access-control-allow-origin"] == "*", f"{name}: {headers}"
    assert "retry-after" in headers["access-control-expose-headers"], f"{name}: {headers}"
    print(f"{name}: {got} {code}")


def request(line, headers="", body=""):
    host = "" if "Host:" in headers else "Host: localhost\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\n{host}Connection: close\r\n{ORIGIN}{headers}{length}\r\n{body}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def stream(port, upstream):
    """Checks that nginx passes on a stream at once, although the stream has not ended and no buffer is full, and that the
    service notices when a subscriber disconnects."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request("GET /changes", "Accept: text/event-stream\r\n").encode())
        told = b""
        while b"retry: 1000\n\n" not in told:
            piece = connection.recv(4096)
            assert piece, told
            told += piece
    assert told.startswith(b"HTTP/1.1 200 "), told
    [connected] = upstream.streams
    connected.settimeout(20)
    assert connected.recv(1) == b"", "nginx keeps a stream open after its subscriber has disconnected"
    print("nginx passes on a stream immediately, and closes it when its subscriber disconnects")


def checks(port, upstream):
    stream(port, upstream)
    add = request("POST /rpc/add_widget", "Content-Type: application/json\r\n", "{}")
    check("an operation that gets no answer", raw(port, add), 503, "WG505")
    nothing = request("POST /nope", "Content-Type: application/json\r\n", "{}")
    check("another path that gets no answer", raw(port, nothing), 503, "WG504")
    upstream.close()
    # After two failures within 2 s, nginx considers the upstream dead and sends it nothing.
    for name in ("upstream refuses", "upstream refuses again", "upstream considered dead"):
        check(name, raw(port, add), 503, "WG504")
    check("a read", raw(port, request("GET /widgets/E")), 503, "WG504")
    trace = raw(port, request("TRACE /"))
    assert trace[1]["allow"] == "options, get, head, post", trace
    check("TRACE", trace, 405, "PGRST117")
    check("a long path", raw(port, request("GET /" + "a" * 9000)), 414, "WG400")
    check("a long header", raw(port, request("GET /", f"X: {'a' * 9000}\r\n")), 400, "WG400")
    check("two hosts", raw(port, request("GET /", "Host: a\r\nHost: b\r\n")), 400, "WG400")
    check("no HTTP", raw(port, "nonsense\r\n\r\n"), 400, "WG400")
    check("an unknown encoding", raw(port, request("POST /", "Transfer-Encoding: x\r\n")), 400, "WG400")
    check("a long body", raw(port, request("POST /", "Content-Length: 99999999\r\n")), 413, "PGRST102")
    check("metrics", raw(port, request("GET /metrics")), 404, "PGRST125")
    check("a backup", raw(port, request("GET /backup")), 404, "PGRST125")
    for path in ("/replication?from=copy", "/replication/hand-over?within_ms=1", "/%72eplication/promote"):
        check("a path for standbys", raw(port, request(f"GET {path}")), 404, "PGRST125")
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    for connection in held:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
    # nginx counts a connection once it has read the head of its request.
    deadline = time.monotonic() + 20
    while "WG503" not in (answer := raw(port, request("GET /")))[2] and time.monotonic() < deadline:
        time.sleep(0.01)
    check("many connections", answer, 503, "WG503")
    for connection in held:
        connection.close()
    while "WG429" not in (answer := raw(port, request("GET /")))[2] and time.monotonic() < deadline:
        pass
    check("many requests", answer, 429, "WG429")


def main(deployments):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        upstream = Upstream()
        port = free_port()
        configuration(pathlib.Path(deployments), folder, port, upstream.port)
        # If root starts nginx, its workers run as another user.
        folder.chmod(0o755)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        nginx = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    assert nginx.poll() is None, nginx.stderr.read()
                    time.sleep(0.05)
            checks(port, upstream)
        finally:
            nginx.terminate()
            nginx.wait()


main(sys.argv[1])
