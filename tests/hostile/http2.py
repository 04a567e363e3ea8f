#!/usr/bin/env python3
"""Sends floods over HTTP/2 that no library would send, frame by frame (h2c with prior knowledge; TLS uses the
same code). Checks that they take no memory, that the service ends endless requests, and that a good client is
not affected.

    tests/hostile/http2.py BINARY [FRAMES]"""

import pathlib
import shutil
import socket
import struct
import sys
import tempfile
import time

from service import Service, beside_a_good_client, end, figures

REQUEST_TIMEOUT_MS = 1000
MEMORY_GROWTH_MAX_MIB = 48
CONNECTIONS = 20
PAUSE = 0.5  # How many seconds the good client is measured before and after each attack.
STREAMS = 64  # What the service allows on one connection.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = struct.pack(">I", 8)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name_index, value):
    """Encodes a header with a name from HPACK's static table, without indexing (RFC 7541, 6.2.2)."""
    prefix = bytes([name_index]) if name_index < 15 else bytes([15, name_index - 15])
    return prefix + bytes([len(value)]) + value


AUTHORITY = literal(1, b"t")
LOOKUP = b"\x82\x86" + literal(4, b"/widgets/flood") + AUTHORITY
DOCUMENT = b"\x82\x86" + literal(4, b"/") + AUTHORITY
LIVE = b"\x82\x86" + literal(4, b"/live") + AUTHORITY
ADD = (b"\x83\x86" + literal(4, b"/rpc/add_widget") + AUTHORITY
       + literal(31, b"application/json") + literal(28, b"9999"))


class Peer:
    """A connection that sends any bytes, and reads only when asked to."""

    def __init__(self, address, initial_window=None, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(address)
        settings = b"" if initial_window is None else struct.pack(">HI", 4, initial_window)
        self.closed, self.error, self.buffer, self.next = False, None, b"", 1
        self.ended = set()  # Streams that the service has ended.
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))

    def stream(self):
        self.next += 2
        return self.next - 2

    def send(self, data, timeout=20):
        """Sends the data, and returns whether it could be sent."""
        self.socket.settimeout(timeout)
        try:
            self.socket.sendall(data)
        except TimeoutError:
            return False
        except OSError:
            self.closed = True
        return not self.closed

    def read(self):
        """Reads the frames that have arrived."""
        self.socket.settimeout(0)
        try:
            while data := self.socket.recv(1 << 16):
                self.buffer += data
            self.closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                break
            kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
            payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
            if kind == GOAWAY:
                self.error = struct.unpack(">I", payload[4:8])[0]
            elif kind == RST_STREAM or kind in (HEADERS, DATA) and flags & END_STREAM:
                self.ended.add(stream)
        return not self.closed and self.error is None

    def close(self):
        self.socket.close()


def reset(peer):
    """CVE-2023-44487: a request and, immediately, its cancellation."""
    stream = peer.stream()
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, LOOKUP) + frame(RST_STREAM, 0, stream, CANCEL)


def begin(headers, flags=END_HEADERS):
    """Returns a function that returns this head for the first frame of a connection, and then the frames that follow."""
    def first(peer, follow):
        if peer.next == 1:
            return frame(HEADERS, flags, peer.stream(), headers)
        return follow
    return first


HEAD_WITHOUT_END, BODY_WITHOUT_END = begin(LOOKUP, END_STREAM), begin(ADD)
FILLER = literal(31, b"x" * 100) * 100

# The function that makes the next frames of each flood, which repeats them on a connection until the service closes it.
FLOODS = {
    "requests that are reset": reset,
    "pings": lambda peer: frame(PING, 0, 0, b"8 bytes."),
    "settings": lambda peer: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)),
    "priorities": lambda peer: frame(PRIORITY, 0, peer.stream(), struct.pack(">IB", 0, 9)),
    "continuations": lambda peer: HEAD_WITHOUT_END(peer, frame(CONTINUATION, 0, 1, FILLER)),
    "empty continuations": lambda peer: HEAD_WITHOUT_END(peer, frame(CONTINUATION, 0, 1)),
    "empty data": lambda peer: BODY_WITHOUT_END(peer, frame(DATA, 0, 1)),
    "window updates": lambda peer: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
}


def flood(address, make, frames, reads):
    """Sends this many frames. Returns how many connections that took, and how many of them were cut. A
    connection that does not read is blocked by its own unread answers."""
    def connect():
        return Peer(address, receive_buffer=None if reads else 4096)

    peers, sent = [connect()], 0
    while sent < frames:
        peer = peers[-1]
        batch = min(100, frames - sent)
        taken = peer.send(b"".join(make(peer) for _ in range(batch)), timeout=0.5)
        sent += batch
        going = peer.read() if reads else not peer.closed
        if not (taken and going):
            peers.append(connect())
    time.sleep(0.2)
    for peer in peers:
        peer.read()
    cut = sum(peer.closed or peer.error is not None for peer in peers)
    for peer in peers:
        peer.close()
    return len(peers), cut


def slow_bodies(address):
    """Sends bodies a byte at a time, on connections that are never idle. Returns how many bodies there were, how
    many were not ended, after how many seconds the last one was ended, and how many connections still work."""
    peers = [Peer(address) for _ in range(CONNECTIONS)]
    open_streams = {peer: {peer.stream() for _ in range(STREAMS)} for peer in peers}
    for peer, streams in open_streams.items():
        peer.send(b"".join(frame(HEADERS, END_HEADERS, stream, ADD) for stream in sorted(streams)))
    start = time.monotonic()
    while any(open_streams.values()) and time.monotonic() - start < 20:
        time.sleep(0.2)
        for peer, streams in open_streams.items():
            peer.read()
            streams -= peer.ended
            peer.send(b"".join(frame(DATA, 0, stream, b" ") for stream in streams)
                      + frame(PING, 0, 0, b"8 bytes."))
    seconds = time.monotonic() - start
    left = sum(len(streams) for streams in open_streams.values())
    alive = 0
    for peer in peers:
        stream = peer.stream()
        peer.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, LIVE))
        deadline = time.monotonic() + 5
        while stream not in peer.ended and peer.read() and time.monotonic() < deadline:
            time.sleep(0.01)
        alive += stream in peer.ended
        peer.close()
    return CONNECTIONS * STREAMS, left, seconds, alive


def unread_answers(address, resident_mib):
    """Requests answers without a flow-control window, then opens it a byte at a time. Returns how many answers there
    were, and the memory while they wait."""
    peers = [Peer(address, initial_window=0) for _ in range(CONNECTIONS)]
    for peer in peers:
        streams = [peer.stream() for _ in range(STREAMS)]
        peer.send(b"".join(frame(HEADERS, END_STREAM | END_HEADERS, s, DOCUMENT) for s in streams))
    for _ in range(10):
        time.sleep(0.2)
        for peer in peers:
            peer.read()
            peer.send(b"".join(frame(WINDOW_UPDATE, 0, s, struct.pack(">I", 1))
                               for s in range(1, peer.next, 2) if s not in peer.ended)
                      + frame(PING, 0, 0, b"8 bytes."))
    held = resident_mib()
    for peer in peers:
        peer.close()
    return CONNECTIONS * STREAMS, held


def beside(service, failures, attack):
    """Runs an attack beside a good client, prints the figures of both, and returns the attack's result."""
    with figures(service):
        result, wrong = beside_a_good_client(service.address, attack, PAUSE)
        failures += wrong
    return result


def main(binary, frames):
    folder = tempfile.mkdtemp(prefix="widgets-http2-")
    service = Service(
        binary, folder, f"--request-timeout-ms={REQUEST_TIMEOUT_MS}", "--idle-timeout-ms=3000")
    address, failures = service.address, []
    try:
        print(f"HTTP/2: {service.resident_mib():.1f} MiB resident at first")
        # Warm up first: what the allocator keeps after the first thousands of streams is no leak.
        for make in FLOODS.values():
            flood(address, make, 1000, True)
        slow_bodies(address)
        before = service.resident_mib()
        for name, make in FLOODS.items():
            for reads in (True, False):
                start = time.monotonic()
                connections, cut = beside(service, failures, lambda: flood(address, make, frames, reads))
                print(f"HTTP/2 flood, {name + ('' if reads else ', answers unread'):<42}: {frames} in "
                      f"{time.monotonic() - start - 2 * PAUSE:5.1f} s, {connections:>4} connections, {cut:>4} cut")
                if "continuations" in name and cut == 0:
                    failures.append(f"{name}: the connection of an endless head was not closed")
        streams, left, seconds, alive = beside(service, failures, lambda: slow_bodies(address))
        print(f"HTTP/2 slow bodies: {streams} on {CONNECTIONS} connections, {streams - left} ended within "
              f"{seconds:.1f} s (request_timeout {REQUEST_TIMEOUT_MS / 1000:.0f} s), {alive} connections go on")
        if left or alive < CONNECTIONS:
            failures.append(f"slow bodies: {left} were not ended, {alive} connections still worked")
        streams, held = beside(service, failures, lambda: unread_answers(address, service.resident_mib))
        print(f"HTTP/2 answers without room: {streams} on {CONNECTIONS} connections, {held:.1f} MiB")
        after = max(held, service.resident_mib())
        print(f"resident memory: {before:.1f} MiB before, {after:.1f} MiB after")
        if after - before > MEMORY_GROWTH_MAX_MIB:
            failures.append("memory grew")
        if not service.stop():
            failures.append("the service did not stop gracefully")
        log = (pathlib.Path(folder) / "log").read_text()
        if "panicked" in log:
            failures.append(f"the service panicked: {log}")
    finally:
        service.kill()
        shutil.rmtree(folder, ignore_errors=True)
    end(failures)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
