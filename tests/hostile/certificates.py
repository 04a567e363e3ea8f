#!/usr/bin/env python3
"""Tests client certificates that are no longer valid, with the real binary: sessions with client certificates must not be
resumed, because that would not present the certificate again, and an open connection must end when its authority is
replaced. Needs openssl.

    tests/hostile/certificates.py BINARY"""

import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from service import Service, end

# The service checks its files every 5 seconds, and at SIGHUP.
ENDS_MAX_SECONDS = 20


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder, name):
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")


def issue(folder, by, name):
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / "extensions").write_text("subjectAltName = DNS:localhost\nbasicConstraints = CA:false\n")
    openssl(folder, "x509", "-req", "-days", "1", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key",
            "-CAcreateserial", "-extfile", "extensions", "-out", f"{name}.pem")


def ask(connection):
    """Looks up a widget that does not exist, and returns the status."""
    connection.sendall(b"GET /widgets/nobody HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("the connection was closed")
        answer += piece
    return int(answer.split()[1])


def connect(address, context, session=None):
    return context.wrap_socket(
        socket.create_connection(address, timeout=20), server_hostname="localhost", session=session)


def resumed(address, context):
    """Reports whether a second connection resumes the session of the first one."""
    with connect(address, context) as first:
        status = ask(first)
        session = first.session
    assert status == 404, status
    if session is None or not session.has_ticket and not session.id:
        return False
    with connect(address, context, session) as second:
        ask(second)
        return second.session_reused


def main(binary):
    if shutil.which("openssl") is None:
        print("NOT TESTED: client certificates. openssl is not installed", file=sys.stderr)
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="widgets-certificates-"))
    failures = []
    try:
        for name in ("ours", "theirs"):
            authority(folder, name)
        for name in ("server", "client"):
            issue(folder, "ours", name)
        shutil.copy(folder / "ours.pem", folder / "ca.pem")
        tls = [f"--tls-certificate={folder}/server.pem", f"--tls-key={folder}/server.key"]
        for clients in ([], [f"--tls-client-ca={folder}/ca.pem"]):
            service = Service(binary, folder, *tls, *clients, scheme="https")
            try:
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                    context = ssl.create_default_context(cafile=folder / "ours.pem")
                    context.minimum_version = context.maximum_version = version
                    context.load_cert_chain(folder / "client.pem", folder / "client.key")
                    goes_on = resumed(service.address, context)
                    what = "with" if clients else "without"
                    print(f"certificates: {version.name} {what} client certificates: a session "
                          f"{'is' if goes_on else 'is not'} resumed")
                    if goes_on == bool(clients):
                        failures.append(f"{version.name} {what} client certificates: resumed is {goes_on}")
                if clients:
                    open_one = connect(service.address, context)
                    assert ask(open_one) == 404
                    shutil.copy(folder / "theirs.pem", folder / "ca.pem")
                    start = time.monotonic()
                    service.process.send_signal(signal.SIGHUP)
                    open_one.settimeout(ENDS_MAX_SECONDS)
                    try:
                        ended = open_one.recv(1) == b""
                    except TimeoutError:
                        ended = False
                    except OSError:
                        ended = True
                    print(f"certificates: a connection whose authority was replaced {'ended' if ended else 'stays'}, "
                          f"{time.monotonic() - start:.1f} s after SIGHUP")
                    if not ended:
                        failures.append("a connection outlives its authority")
            finally:
                service.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    end(failures)


main(sys.argv[1])
