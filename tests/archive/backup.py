#!/usr/bin/env python3
"""Tests `widgets backup` of a running service: a backup is complete. A caller without permission, one that disconnects and
one whose disk is full get no data directory on which a service would start.

    tests/archive/backup.py target/debug/widgets
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from service import Service, Writers, check

SECRET = "a secret of at least thirty-two bytes"


def token(role, secret=SECRET):
    encode = lambda part: base64.urlsafe_b64encode(part).rstrip(b"=")
    signed = encode(b'{"alg":"HS256"}') + b"." + encode(json.dumps({"role": role}).encode())
    signature = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encode(signature)).decode()


def url(service):
    return f"http://127.0.0.1:{service.port}"


def backup(service, to, *arguments, at=None, who=None):
    environment = {"WIDGETS_TOKEN": who} if who else {}
    return service.command("backup", at or url(service), "--to", to, *arguments, environment=environment)


def serial_numbers_in(service, directory):
    """Returns the serial numbers in a directory, as a service on it reports them."""
    verified = service.command("verify", "--data-dir", directory)
    check(verified.returncode == 0, verified.stdout.strip() or verified.stderr.strip())
    reader = Service(service.binary, directory, None).start()
    found = reader.serial_numbers()
    reader.stop()
    return found


def empty(directory):
    return not os.path.exists(directory) or not [name for name in os.listdir(directory) if name != "lock"]


def is_refused_by_serve(service, directory):
    started = service.command("serve", "--data-dir", directory, "--listen", "127.0.0.1:0")
    return started.returncode != 0 and "widgets restore" in started.stderr


def under_load(binary, folder):
    service = Service(binary, os.path.join(folder, "data"), f"file://{folder}/archive",
                      settings=["--checkpoint-journal-bytes", "262144", "--archive-interval-ms", "300"]).start()
    writers = Writers(service, 4, "w")
    time.sleep(1.5)
    for number in range(3):
        before = set(writers.answered)
        to = os.path.join(folder, f"copy-{number}")
        taken = backup(service, to)
        check(taken.returncode == 0, taken.stdout.splitlines()[0] if taken.stdout else taken.stderr)
        sent = set(writers.sent)
        found = serial_numbers_in(service, to)
        later = len(found - before)
        check(before <= found <= sent, f"the backup has all {len(before)} widgets acknowledged before it, and {later} later ones")
    writers.stop()
    service.wait_until_archived()
    verified = service.command("archive", "verify", service.archive)
    check(verified.returncode == 0, f"the archive written at the same time: {verified.stdout.strip()}")
    again = backup(service, os.path.join(folder, "copy-0"))
    check(again.returncode == 1 and "not empty" in again.stderr, again.stderr.strip())
    nobody = backup(service, os.path.join(folder, "copy-0"), at="http://127.0.0.1:1")
    check("not empty" in nobody.stderr, "a directory that is not empty is refused before any request is sent")
    nobody = backup(service, os.path.join(folder, "nobody"), at="http://127.0.0.1:1")
    check(nobody.returncode == 1 and "connection refused" in nobody.stderr, nobody.stderr.strip())
    return service


def cut_off(service, folder):
    """Takes a backup through a server that sends only a part of it."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("GET", "/backup")
    whole = connection.getresponse().read()

    class Cut(http.server.BaseHTTPRequestHandler):
        # Without a length, the answer ends where the connection ends.
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(whole[: len(whole) * 2 // 3])

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    to = os.path.join(folder, "cut")
    taken = backup(service, to, at=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    check(taken.returncode == 1 and "cut off" in taken.stderr, taken.stderr.strip())
    check(is_refused_by_serve(service, to), "no service starts on a truncated backup")
    taken = backup(service, to)
    check(taken.returncode == 0 and serial_numbers_in(service, to) == service.serial_numbers(),
          "the same command, repeated, takes the whole backup")


def full_disk(service, folder):
    disk = os.path.join(folder, "disk")
    os.makedirs(disk)
    for way in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"], ["sudo", "-n", "unshare", "--mount"]):
        small = ["mount", "-t", "tmpfs", "-o", "size=1M", "widgets-test", disk]
        try:
            if subprocess.run([*way, *small], capture_output=True).returncode == 0:
                break
        except FileNotFoundError:
            pass
    else:
        print("NOT TESTED: a full disk. No file system can be mounted here", file=sys.stderr)
        return
    script = f'{" ".join(small)} && exec "$@"'
    command = [*way, "sh", "-c", script, "sh", service.binary, "backup", url(service), "--to", os.path.join(disk, "copy")]
    taken = subprocess.run(command, capture_output=True, text=True, timeout=300)
    check(taken.returncode == 1 and "No space left" in taken.stderr, taken.stderr.strip())


def disconnect(service, folder):
    """Disconnects one client during a backup, and lets another stop reading."""
    slow = socket.create_connection(("127.0.0.1", service.port))
    slow.sendall(b"GET /backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
    check(b"200 OK" in slow.recv(100), "a backup begins")
    slow.close()
    until = time.time() + 60
    to = os.path.join(folder, "after")
    # The service notices that the first client is gone when it cannot send the next piece.
    while (taken := backup(service, to)).returncode != 0 and time.time() < until:
        check("WG503" in taken.stderr, taken.stderr.strip())
    check(taken.returncode == 0, "after an abandoned backup, another one can be taken")
    slow = socket.create_connection(("127.0.0.1", service.port))
    slow.sendall(b"GET /backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
    slow.recv(100)
    service.stop()
    check(service.process.returncode == 0, "a client that does not read its backup does not keep the service from stopping")
    slow.close()


def roles(binary, folder):
    secret = os.path.join(folder, "secret")
    with open(secret, "w") as file:
        file.write(SECRET)
    os.chmod(secret, 0o600)
    settings = ["--jwt-secret-file", secret]
    service = Service(binary, os.path.join(folder, "guarded"), None, settings=settings).start()
    to = os.path.join(folder, "mine")
    for who, code, word in ((None, 3, "PGRST302"), (token("admin", SECRET + "!"), 3, "PGRST301"), (token("writer"), 3, "42501"),
                            (token("reader"), 3, "42501")):
        taken = backup(service, to, who=who)
        check(taken.returncode == code and word in taken.stderr and empty(to), taken.stderr.strip())
    file = os.path.join(folder, "token")
    with open(file, "w") as written:
        written.write(token("admin"))
    os.chmod(file, 0o600)
    taken = backup(service, to, "--token-file", file)
    check(taken.returncode == 0, f"as an admin role: {taken.stdout.splitlines()[0] if taken.stdout else taken.stderr}")
    log = open(service.errors).read()
    check(SECRET not in log and token("admin") not in log, "no secret was logged")
    service.stop()


def invalid_arguments(binary, folder):
    for arguments in (["http://127.0.0.1:1", "--data-dir", folder], ["file:///tmp/archive", "--to", folder], ["http://127.0.0.1:1"],
                      ["ftp://host", "--to", folder]):
        told = subprocess.run([binary, "backup", *arguments], capture_output=True, text=True)
        check(told.returncode == 2, told.stderr.strip().splitlines()[0])


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        invalid_arguments(binary, folder)
        service = under_load(binary, folder)
        cut_off(service, folder)
        full_disk(service, folder)
        disconnect(service, folder)
        roles(binary, folder)


main()
