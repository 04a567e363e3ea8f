#!/usr/bin/env python3
"""Tests the real binary with clients that do not read their answers (many long rows, or streams of changes), beside a good
client.

    tests/hostile/rows.py BINARY [CLIENTS [ATTACK...]]

Prints the good client's p99 before, during and after each attack, and memory. Fails if memory exceeds its bound or a good
client is refused anything."""

import socket
import sys
import time

from http2 import AUTHORITY, END_HEADERS, END_STREAM, HEADERS, STREAMS, Peer, frame
from service import Connection, add, beside_a_good_client, end, get, served

LISTS_GROWTH_MAX_MIB = 250
STREAMS_GROWTH_MAX_MIB = 120
# A name whose characters take six bytes each in JSON.
LONG = rb"\u0001" * 1024
WIDGETS = 1000


def fill(service):
    writer = Connection(service.address)
    for each in range(WIDGETS):
        status, _ = writer.ask(add(b"w%d" % each, LONG))
        assert status == 204, status
    return writer


def not_reading(address, request, count):
    """Opens this many clients that send a request and read nothing."""
    held = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(address)
        client.sendall(request)
        held.append(client)
    return held


def most_resident(service, seconds):
    most, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, service.resident_mib())
        time.sleep(0.05)
    return most


def lists(binary, clients):
    """Requests pages that are longer than an answer may be, and some that are not, over HTTP/1.1 and HTTP/2."""
    block = b"\x82\x86\x04\x12/widgets?limit=600" + AUTHORITY
    with served(binary, "--answer-timeout-ms=2000") as service:
        writer = fill(service)
        too_long, _ = writer.ask(get(b"/widgets?limit=1000"))
        fits, _ = writer.ask(get(b"/widgets?limit=600"))
        before = service.resident_mib()

        def attack():
            held = not_reading(service.address, get(b"/widgets?limit=1000"), clients)
            held += not_reading(service.address, get(b"/widgets?limit=600"), clients)
            peers = [Peer(service.address, initial_window=0) for _ in range(clients // 20)]
            for peer in peers:
                peer.send(b"".join(frame(HEADERS, END_STREAM | END_HEADERS, peer.stream(), block)
                                   for _ in range(STREAMS)), timeout=1)
            most = most_resident(service, 8)
            for client in held + peers:
                client.close()
            return most

        most, failures = beside_a_good_client(service.address, attack)
        print(f"lists: {clients} clients that ask for {WIDGETS} long rows, {clients} for 600, and {clients // 20} over "
              f"HTTP/2 with {STREAMS} streams: {before:.1f} MiB before, {most:.1f} MiB at most")
        if most - before > LISTS_GROWTH_MAX_MIB:
            failures.append(f"lists took {most - before:.0f} MiB")
        if (too_long, fits) != (400, 200):
            failures.append(f"lists alone were answered {too_long} and {fits}")
        return failures


def streams(binary, clients):
    """Requests streams of all changes from the oldest on."""
    request = b"GET /changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    with served(binary) as service:
        fill(service)
        before = service.resident_mib()

        def attack():
            held = not_reading(service.address, request, clients)
            most = most_resident(service, 8)
            answer = first_line(service.address, request)
            for client in held:
                client.close()
            return most, answer

        (most, answer), failures = beside_a_good_client(service.address, attack)
        print(f"streams: {clients} of all changes: {before:.1f} MiB before, {most:.1f} MiB at most; another address is "
              f"answered {answer}")
        if most - before > STREAMS_GROWTH_MAX_MIB:
            failures.append(f"streams took {most - before:.0f} MiB")
        if answer != 200:
            failures.append(f"another address got status {answer} beside {clients} streams of one address")
        return failures


def first_line(address, request):
    """Sends a request from another address, and returns its status."""
    client = socket.create_connection(address, 20, ("127.0.0.2", 0))
    client.sendall(request)
    status = client.makefile("rb").readline().split()[1]
    client.close()
    return int(status)


def main(binary, clients=400, *names):
    failures = []
    # More streams than one address may open.
    for attack, how_many in ((lists, int(clients)), (streams, 1100)):
        if not names or attack.__name__ in names:
            failures += attack(binary, how_many)
    end(failures)


main(*sys.argv[1:])
