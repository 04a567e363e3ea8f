#!/usr/bin/env python3
"""Sends a running service requests that no well-behaved client sends, and checks that they do no harm.

    tests/hostile/requests.py BINARY [REQUESTS]

Starts the service on a free port with a new data directory. Prints figures. Fails if memory grows, a smuggled
request is applied, a good client is refused, a bad request gets an answer other than 4xx, or slow connections
are left open."""

import collections
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from service import POST, Connection, Service, add, beside_a_good_client, end, figures, get

SLOW_CONNECTIONS = 200
HELD_CONNECTIONS = 2000
MEMORY_GROWTH_MAX_MIB = 32
SMUGGLED = add(b"smuggled")


def with_body(body):
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), True


def cut(lines, body=b""):
    """Returns a request after which the service must close the connection, followed by a smuggled one."""
    return POST + lines + b"\r\n\r\n" + body + SMUGGLED, False


def chunked(body):
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# By name, a function that makes a request and tells whether the connection survives it. The hidden request is `SMUGGLED`.
KINDS = {
    "random bytes as a body": lambda r: with_body(r.randbytes(r.randrange(1, 200))),
    "nested brackets": lambda r: with_body(b"[" * r.randrange(1, 5000)),
    "an unknown port type": lambda r: with_body(
        b'{"widget_sn":"E","widget_name":"","slots":["Z"]}'
    ),
    "a serial number past its limit": lambda r: with_body(
        b'{"widget_sn":"%b","widget_name":"","slots":[]}' % (b"x" * r.randrange(256, 4000))
    ),
    "values of a wrong type": lambda r: with_body(
        b'{"widget_sn":%d,"widget_name":[],"slots":{}}' % r.randrange(10**9)
    ),
    "unknown paths": lambda r: (get(b"/" + r.randbytes(8).hex().encode()), True),
    "tokens that nobody signed": lambda r: (
        b"GET /widgets/E HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b.%b.%b\r\n\r\n"
        % tuple(r.randbytes(9).hex().encode() for _ in range(3)),
        True,
    ),
    "a body past the limit": lambda r: (POST + b"Content-Length: %d\r\n\r\n{" % 10**9, False),
    "a head past the limit": lambda r: (
        b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * r.randrange(20_000, 70_000)),
        False,
    ),
    "too many header lines": lambda r: (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", False),
    "lengths that differ": lambda r: cut(b"Content-Length: 4\r\nContent-Length: 5", b"{}"),
    "a length that is none": lambda r: cut(
        b"Content-Length: " + r.choice([b"+2", b"-1", b"0x2", b"2, 3", b"2 2", b""]), b"{}"
    ),
    "chunks and a length": lambda r: cut(
        b"Content-Length: %d\r\nTransfer-Encoding: chunked" % r.randrange(200), chunked(SMUGGLED)
    ),
    "an unknown encoding": lambda r: cut(
        b"Transfer-Encoding: " + r.choice([b"xchunked", b"chunked, identity", b"gzip"]), b"{}"
    ),
    "broken chunks": lambda r: cut(
        b"Transfer-Encoding: chunked",
        r.choice([b"zz\r\n", b"-1\r\n", b"2\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"f" * 17]),
    ),
    "bare line ends and NUL": lambda r: cut(r.choice([b"X: a\rb", b"X: a\0b", b"X\n: b", b" X: b"])),
    "no HTTP": lambda r: (b"\x16\x03\x01" + r.randbytes(20).hex().encode() + b"\r\n\r\n", False),
}


def attack(address, seed, requests):
    """Sends the requests, and returns the statuses of the answers by kind."""
    rng, connection = random.Random(seed), Connection(address)
    kinds = list(KINDS.items())
    statuses = {name: collections.Counter() for name in KINDS}
    for number in range(requests):
        name, make = kinds[number % len(kinds)]
        status, _ = connection.ask(*make(rng))
        statuses[name][status] += 1
    connection.close()
    return statuses


def slow(address):
    """Opens connections that occasionally send a byte, and returns how many the service closed."""
    slow_ones = []
    for number in range(SLOW_CONNECTIONS):
        slow_one = socket.create_connection(address, timeout=20)
        slow_one.sendall((b"GET / HTTP/1.1\r\n", POST + b"Content-Length: 99\r\n\r\n{")[number % 2])
        slow_one.setblocking(False)
        slow_ones.append(slow_one)
    deadline = time.monotonic() + 12
    closed = set()
    while time.monotonic() < deadline and len(closed) < SLOW_CONNECTIONS:
        time.sleep(0.5)
        for slow_one in set(slow_ones) - closed:
            try:
                slow_one.send(b"x")
                if slow_one.recv(4096) == b"":
                    closed.add(slow_one)
            except BlockingIOError:
                pass
            except OSError:
                closed.add(slow_one)
    for slow_one in slow_ones:
        slow_one.close()
    return len(closed)


def main(binary, requests):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    folder = tempfile.mkdtemp(prefix="widgets-hostile-")
    service = Service(
        binary, folder, "--request-timeout-ms=3000", "--idle-timeout-ms=6000",
        "--jwt-secret=a secret of the hostile tests only", "--anonymous-role=writer",
    )
    address, failures = service.address, []
    try:
        def beside(attack):
            with figures(service):
                result, wrong = beside_a_good_client(address, attack)
                failures.extend(wrong)
            return result

        # Warm up first: what the allocator keeps after the first thousands of requests is no leak.
        attack(address, 0, max(requests // 20, len(KINDS)))
        def bad_requests():
            start = time.monotonic()
            return attack(address, 1, requests), time.monotonic() - start

        before = service.resident_mib()
        statuses, seconds = beside(bad_requests)
        after = service.resident_mib()
        print(f"bad requests: {requests} in {seconds:.1f} s")
        for name, answers in statuses.items():
            print(f"  {name:<32} {answers.total():>6}  {dict(sorted(answers.items()))}")
            # If the service closes the connection while the head is being sent, the answer may be lost.
            allowed = range(400, 500)
            if any(status not in allowed for status in answers if status != 0):
                failures.append(f"{name}: the status was not 4xx")
            if answers[0] and "past the limit" not in name and "lines" not in name:
                failures.append(f"{name}: not answered")
        print(f"resident memory: {before:.1f} MiB before, {after:.1f} MiB after")
        if after - before > MEMORY_GROWTH_MAX_MIB:
            failures.append("memory grew")
        if Connection(address).ask(get(b"/widgets/smuggled"))[0] != 404:
            failures.append("a request that was smuggled in another one was applied")

        def idle():
            held = [socket.create_connection(address, timeout=20) for _ in range(HELD_CONNECTIONS)]
            time.sleep(1)
            return held, service.resident_mib()

        held, resident = beside(idle)
        print(f"idle connections: {HELD_CONNECTIONS} held, {resident:.1f} MiB resident")
        closed = beside(lambda: slow(address))
        print(f"slow connections: {closed} of {SLOW_CONNECTIONS} cut within 12 s (request_timeout 3 s)")
        if closed < SLOW_CONNECTIONS:
            failures.append("slow connections were left open")
        for connection in held:
            connection.close()
        if tool := shutil.which("slowhttptest"):
            for mode, what in (("-H", "heads"), ("-B", "bodies"), ("-X", "reading")):
                command = [tool, mode, "-c", "500", "-r", "250", "-i", "1", "-l", "8"]
                command += ["-u", f"{service.url}/rpc/add_widget"]
                beside(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=False))
                print(f"slowhttptest: slow {what}, 500 connections, 8 s")
        if not service.stop():
            failures.append("the service did not stop gracefully")
    finally:
        service.kill()
        shutil.rmtree(folder, ignore_errors=True)
    end(failures)


main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
