#!/usr/bin/env python3
"""Tests a full disk under the running service: writes are refused, reads still work, nothing is lost, and
writes work again once there is space.

    tests/hostile/disk_full.py BINARY

The disk is a small tmpfs in a separate mount namespace, which needs root, user namespaces, or sudo without
a password. Without any of them, prints that nothing was tested, and succeeds."""

import errno
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from service import Connection, Service, add, get

DISK_MIB = 32
SEGMENT_BYTES = 4 << 20
NAMESPACE = "WIDGETS_TEST_NAMESPACE"


def fill(connection, acknowledged, wanted):
    """Adds widgets until an answer is not 204, and returns that answer."""
    for _ in range(wanted):
        name = b"w%d" % len(acknowledged)
        status, body = connection.ask(add(name, b"n" * 1024))
        if status != 204:
            return status, body
        acknowledged.append(name)
    return 204, b""


def missing(connection, names):
    return [name for name in names if connection.ask(get(b"/widgets/" + name))[0] != 200]


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def main(binary, folder):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=True)
    arguments = f"--segment-bytes={SEGMENT_BYTES}", "--log-filter=error"
    service = Service(binary, folder, *arguments)
    acknowledged = []
    try:
        connection = Connection(service.address)
        check(fill(connection, acknowledged, 1000)[0] == 204, "widgets can be added while the disk has space")
        with open(pathlib.Path(folder) / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"the disk fills up, not {error}")
        status, body = fill(connection, acknowledged, 1_000_000)
        check(status == 503 and b'"WG504"' in body, f"a full disk gives WG504, not {status} {body}")
        full = len(acknowledged)
        print(f"disk full after {full} widgets: {body.decode()}")
        # These names are as long as the others, because a shorter entry might still fit.
        refused = sum(
            b'"WG504"' in connection.ask(add(b"refused%d" % number, b"n" * 1024))[1]
            for number in range(100)
        )
        check(refused == 100, f"{refused} of 100 more writes were answered WG504")
        check(not missing(connection, acknowledged), "reads still work")
        check(connection.ask(get(b"/live"))[0] == 200, "/live is 200")
        ready, _ = connection.ask(get(b"/ready"))
        print(f"while it is full: 100 of 100 writes WG504, {full} reads right, /live 200, /ready {ready}")
        os.remove(pathlib.Path(folder) / "filler")
        start = time.monotonic()
        while fill(connection, acknowledged, 1)[0] != 204:
            check(time.monotonic() - start < 30, "writes work again within 30 s")
            time.sleep(0.05)
        print(f"space again: writes work after {time.monotonic() - start:.1f} s, without a restart")
        check(fill(connection, acknowledged, 1000)[0] == 204, "writes keep working")
        service.kill()
        service = Service(binary, folder, *arguments)
        connection = Connection(service.address)
        lost = missing(connection, acknowledged)
        check(not lost, f"{len(lost)} acknowledged widgets are lost")
        for number in range(100):
            check(
                connection.ask(get(b"/widgets/refused%d" % number))[0] == 404,
                "a refused widget does not exist",
            )
        print(f"after kill -9 and a restart: {len(acknowledged)} acknowledged, 0 lost, 0 of the refused present")
        check(service.stop(), "the service stops gracefully")
    finally:
        service.kill()


def mount_prefix(disk):
    """Returns the prefix with which a command can mount something that no other process sees."""
    ways = [["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"], ["sudo", "-n", "unshare", "--mount"]]
    for way in ways:
        try:
            mount = [*way, "mount", "-t", "tmpfs", "-o", "size=1M", "widgets-test", disk]
            if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
                return way
        except FileNotFoundError:
            pass
    return None


if NAMESPACE in os.environ:
    del os.environ[NAMESPACE]
    main(*sys.argv[1:])
else:
    with tempfile.TemporaryDirectory(prefix="widgets-disk-full-") as disk:
        mounting = mount_prefix(disk)
        if mounting is None:
            print("NOT TESTED: a full disk. No file system can be mounted here: it takes root with the right "
                  "to mount, user namespaces, or sudo without a password", file=sys.stderr)
            sys.exit(0)
        command = [*mounting, "env", f"{NAMESPACE}=1", sys.executable, __file__, sys.argv[1], disk]
        sys.exit(subprocess.run(command, check=False).returncode)
