#!/usr/bin/env python3
"""Runs attacks that might bring the service down, on the real binary and the real nginx, each beside a good client: requests
that are refused before their bodies have arrived, answers that the client does not read, heads that take more memory than
was sent, probes, log lines, very many addresses, very many idempotency keys, and connections that take all places or all
file descriptors.

    tests/hostile/siege.py BINARY [SECONDS [ATTACK...]]

Prints the good client's p99 before, during and after each attack, memory, and bytes of the log. Fails if memory or the
log exceeds its bound, or a good client is refused anything. If nginx is not installed, skips its part and says so."""

import contextlib
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from http2 import (ADD, AUTHORITY, CANCEL, END_HEADERS, END_STREAM, HEADERS, LOOKUP, PING, RST_STREAM, STREAMS,
                   Peer, frame)
from service import POST, Connection, GoodClient, add, beside, beside_a_good_client, end, get, served

NGINX = pathlib.Path(__file__).resolve().parents[2] / "deployments/docker-compose/nginx"
UNREAD_GROWTH_MAX_MIB = 120
HEADS_GROWTH_MAX_MIB = 200
LEFT_GROWTH_MAX_MIB = 24
PAGES_GROWTH_MAX_MIB = 48
LOG_BYTES_MAX = 64 << 10


def repeat_requests(address, requests, seconds):
    """Runs eight clients that make a connection for each request, and returns how often they got each status."""
    until, statuses = time.monotonic() + seconds, {}

    def one():
        while time.monotonic() < until:
            for request in requests:
                status, _ = Connection(address).ask(request, survives=False)
                statuses[status] = statuses.get(status, 0) + 1

    in_threads(8, one)
    return statuses


def in_threads(count, work):
    """Runs `work` in this many threads at once."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def nginx_configuration(folder, port, upstreams):
    """Writes the recipe's configuration with these replicas, changed so that nginx passes bodies that the recipe does not."""
    ours = folder / "widgets"
    ours.mkdir()
    for name in ("maps.conf", "api.conf", "error.conf"):
        text = (NGINX / name).read_text().replace("/etc/nginx/widgets", str(ours))
        assert name != "api.conf" or "client_max_body_size 64k;" in text
        (ours / name).write_text(text.replace("client_max_body_size 64k;", "client_max_body_size 2m;"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    servers = "".join(f"server 127.0.0.1:{each} max_fails=2 fail_timeout=2s;\n" for each in upstreams)
    recipe = (NGINX / "nginx.conf").read_text()
    level = re.search(r"error_log /dev/stderr (\w+);", recipe)[1]
    access_log = recipe[recipe.index("    log_format "):recipe.index("    # Behind another load balancer")]
    (folder / "nginx.conf").write_text(f"""
        daemon off;
        pid {folder}/pid;
        error_log {folder}/error.log {level};
        events {{ worker_connections 1024; }}
        http {{
            {temporary}
            include {ours}/maps.conf;
            {access_log.replace("/dev/stdout", f"{folder}/access.log")}
            upstream api {{ zone api 256k; least_conn; {servers} keepalive 128; }}
            server {{ listen 127.0.0.1:{port}; include {ours}/api.conf; }}
        }}""")
    return folder / "nginx.conf"


@contextlib.contextmanager
def behind_nginx(binary):
    """Runs nginx in front of three replicas, and yields its address and folder."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    with contextlib.ExitStack() as stack:
        replicas = [
            stack.enter_context(served(
                binary, "--jwt-secret=only the hostile tests know this one", "--anonymous-role=writer"))
            for _ in range(3)
        ]
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="widgets-nginx-")))
        folder.chmod(0o755)
        port = free_port()
        configuration = nginx_configuration(folder, port, [replica.address[1] for replica in replicas])
        proxy = subprocess.Popen([nginx, "-c", str(configuration), "-p", str(folder)], stderr=subprocess.DEVNULL)
        stack.callback(proxy.wait)
        stack.callback(proxy.terminate)
        address = ("127.0.0.1", port)
        while True:
            try:
                socket.create_connection(address).close()
                break
            except OSError:
                assert proxy.poll() is None, (folder / "error.log").read_text()
                time.sleep(0.05)
        yield address, folder


def lines_of_nginx(binary, seconds):
    """Repeats requests that nginx itself refuses: it must not log them."""
    requests = [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: again\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /nope HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /nope HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    ]
    with behind_nginx(binary) as (address, folder):
        statuses, failures = beside(
            LookingClient(address), lambda: repeat_requests(address, requests, seconds))
        written = sum((folder / name).stat().st_size for name in ("access.log", "error.log"))
        print(f"lines of nginx: {statuses}, {written} bytes of its logs")
        if written > LOG_BYTES_MAX:
            failures.append(f"nginx wrote {written} bytes of logs")
        if [status for status in statuses if status >= 500]:
            failures.append(f"lines of nginx: answered {statuses}")
        return failures


def refused_bodies(binary, seconds):
    """One anonymous client sends useless bodies through nginx to three replicas."""
    big = b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    # This could be an operation, but its body is too long.
    too_large = POST + b"Content-Length: 150000\r\n\r\n" + b"x" * 150_000
    with behind_nginx(binary) as (address, folder):
        # The replicas have three separate stores, so the good client only looks up a widget that does not exist.
        statuses, failures = beside(
            LookingClient(address), lambda: repeat_requests(address, (big, too_large), seconds))
        log = (folder / "error.log").read_text()
        failed = log.count("upstream")
        print(f"refused bodies through nginx: {statuses}, {failed} complaints of nginx about a replica")
        if set(statuses) - {404, 413}:
            failures.append(f"refused bodies: answered {statuses}, not 404 and 413 alone")
        if failed:
            failures.append(f"refused bodies: nginx says {log[:500]}")
        return failures


class LookingClient(GoodClient):
    """A good client that repeatedly looks up a widget that does not exist."""

    def run(self):
        connection = Connection(self.address)
        while not self.stopped.is_set():
            start = time.monotonic()
            status, _ = connection.ask(get(b"/widgets/nobody"))
            self.waits.append(time.monotonic() - start)
            if status != 404:
                self.wrong.append(status)
            time.sleep(0.005)
        connection.close()


class ManyGoodClients(LookingClient):
    """A good client that sends each request with another client address."""

    def run(self):
        connection, each = Connection(self.address), 0
        while not self.stopped.is_set():
            each += 1
            request = get(b"/widgets/nobody")[:-2] + b"X-Forwarded-For: 10.%d.%d.%d\r\n\r\n" % (
                each >> 16, each >> 8 & 255, each & 255)
            start = time.monotonic()
            status, _ = connection.ask(request)
            self.waits.append(time.monotonic() - start)
            if status != 404:
                self.wrong.append(status)
            time.sleep(0.005)
        connection.close()


class NewcomingClient(LookingClient):
    """A good client that makes a new connection for each request."""

    def run(self):
        while not self.stopped.is_set():
            start = time.monotonic()
            status, _ = Connection(self.address).ask(get(b"/widgets/nobody"), survives=False)
            self.waits.append(time.monotonic() - start)
            if status != 404:
                self.wrong.append(status)
            time.sleep(0.005)


def hpack_length(length):
    """Encodes an integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if length < 127:
        return bytes([length])
    encoded, length = [127], length - 127
    while length >= 128:
        encoded.append(length % 128 + 128)
        length //= 128
    return bytes([*encoded, length])


def unread_answers(binary, connections):
    """Clients request errors that echo their path, which they send only once, and give the answers no flow-control window."""
    path = b"/" + b"%00" * 1290
    first = b"\x82\x86" + b"\x44" + hpack_length(len(path)) + path + AUTHORITY
    # The path is now the first entry of HPACK's dynamic table.
    again = b"\x82\x86\xbe" + AUTHORITY
    with served(binary, "--answer-timeout-ms=2000", "--request-timeout-ms=2000") as service:
        before = service.resident_mib()

        def attack():
            peers = [Peer(service.address, initial_window=0) for _ in range(connections)]
            for peer in peers:
                blocks = [first, *[again] * (STREAMS - 1)]
                peer.send(b"".join(frame(HEADERS, END_STREAM | END_HEADERS, peer.stream(), block)
                                   for block in blocks), timeout=1)
                # The test is about the memory that is held, not about how many requests a second a worker answers.
                time.sleep(0.05)
            most, deadline = 0, time.monotonic() + 30
            while time.monotonic() < deadline and not all(peer.closed for peer in peers):
                for peer in peers:
                    if not peer.closed:
                        peer.send(frame(PING, 0, 0, b"8 bytes."), timeout=1)
                        peer.read()
                most = max(most, service.resident_mib())
                time.sleep(0.1)
            left = sum(not peer.closed for peer in peers)
            for peer in peers:
                peer.close()
            return most, left

        (most, left), failures = beside_a_good_client(service.address, attack)
        print(f"unread answers: {connections * STREAMS} on {connections} connections: {before:.1f} MiB before, "
              f"{most:.1f} MiB at most, {left} connections left after their deadline")
        if most - before > UNREAD_GROWTH_MAX_MIB:
            failures.append(f"unread answers took {most - before:.0f} MiB")
        if left:
            failures.append(f"unread answers: {left} connections that send pings were left open")
        return failures


def heads(binary, connections):
    """Clients send 90 header lines once. Then they begin requests that repeat these lines with about one byte each, and never
    send the bodies."""
    lines = [b"\x40\x04x-%02d\x01v" % each for each in range(90)]
    # The lines are now in HPACK's dynamic table, the last one as its first entry.
    repeated = ADD + bytes(0x80 | (62 + each) for each in range(65)) + bytes(
        byte for each in range(65, 90) for byte in (0xff, 62 + each - 127))
    with served(binary) as service:
        before = service.resident_mib()

        def attack():
            peers = [Peer(service.address) for _ in range(connections)]
            for peer in peers:
                # More streams than the service allows, which resets the rest.
                blocks = [ADD + b"".join(lines), *[repeated] * 249]
                peer.send(b"".join(frame(HEADERS, END_HEADERS, peer.stream(), block) for block in blocks), timeout=5)
                peer.read()
            most = service.resident_mib()
            for _ in range(50):
                time.sleep(0.1)
                most = max(most, service.resident_mib())
            connected = sum(not peer.closed for peer in peers)
            for peer in peers:
                peer.close()
            time.sleep(1)
            return max(most, service.resident_mib()), connected

        (most, connected), failures = beside_a_good_client(service.address, attack)
        left = service.resident_mib()
        # The allocator keeps memory, so a repetition must reuse it.
        again, _ = attack()
        print(f"heads: {connections} connections of up to {STREAMS} requests of 90 lines: {before:.1f} MiB before, "
              f"{most:.1f} MiB at most, {connected} still connected then, {left:.1f} MiB afterwards, "
              f"{again:.1f} MiB the next time")
        if most - before > HEADS_GROWTH_MAX_MIB:
            failures.append(f"heads took {most - before:.0f} MiB")
        if again - most > LEFT_GROWTH_MAX_MIB:
            failures.append(f"heads take {again - most:.0f} MiB more each time")
        return failures


def unread_pages(binary, connections):
    """HTTP/1.1 clients request the largest file of the page, and read nothing."""
    with served(binary) as service:
        before = service.resident_mib()

        def attack():
            held = []
            for _ in range(connections):
                client = socket.socket()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(service.address)
                client.sendall(get(b"/swagger-ui/swagger-ui-bundle.js"))
                held.append(client)
            time.sleep(2)
            most = service.resident_mib()
            for client in held:
                client.close()
            return most

        most, failures = beside_a_good_client(service.address, attack)
        print(f"unread pages: {connections} connections: {before:.1f} MiB before, {most:.1f} MiB meanwhile")
        if most - before > PAGES_GROWTH_MAX_MIB:
            failures.append(f"unread pages took {most - before:.0f} MiB")
        return failures


def probes(binary, seconds):
    """Floods /ready, which anybody may ask."""
    with served(binary, "--queue-operations-max=8") as service:
        answers = {}

        def attack():
            until = time.monotonic() + seconds

            def one():
                connection = Connection(service.address)
                while time.monotonic() < until:
                    status, _ = connection.ask(get(b"/ready"))
                    answers[status] = answers.get(status, 0) + 1

            in_threads(16, one)

        _, failures = beside_a_good_client(service.address, attack)
        print(f"probes: {answers} in {seconds} s")
        if set(answers) != {200}:
            failures.append(f"probes were answered {answers}")
        return failures


def log_lines(binary, seconds):
    """Cancels requests: for every 22 of them, a library used to write a line to the log."""
    with served(binary) as service:
        before, sent = service.log_bytes(), [0]

        def attack():
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                peer = Peer(service.address)
                for _ in range(40):
                    stream = peer.stream()
                    peer.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, LOOKUP)
                              + frame(RST_STREAM, 0, stream, CANCEL))
                    sent[0] += 1
                peer.read()
                peer.close()

        _, failures = beside_a_good_client(service.address, attack)
        written = service.log_bytes() - before
        print(f"log lines: {sent[0]} requests reset, {written} bytes of log")
        if written > LOG_BYTES_MAX:
            failures.append(f"the log grew by {written} bytes")
        return failures


def addresses(binary, requests):
    """Sends requests from each /64 network of one /48, and afterwards from addresses that have sent none before."""
    arguments = "--rate-limit-per-second=10", "--rate-limit-burst=10", "--trusted-proxies=127.0.0.0/8"
    with served(binary, *arguments) as service:
        def ask_as(connection, address):
            request = f"GET /nope HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\r\n"
            return connection.ask(request.encode())[0]

        connection = Connection(service.address)

        def flood():
            return sum(ask_as(connection, f"[2001:db8:7:{each % 65536:x}::1]:{each % 60000}") == 429
                       for each in range(requests))

        # Each request of the good client comes from a different address, because the rate of each address is limited.
        refused, failures = beside(ManyGoodClients(service.address), flood)
        # These addresses share the groups of buckets with the flood's addresses.
        fresh = [ask_as(connection, address)
                 for each in range(200)
                 for address in (f"192.0.2.{each}:5678", f"2001:db9:{each:x}::1", f"64:ff9b::198.51.100.{each}")]
        wrong = len([status for status in fresh if status != 404])
        print(f"addresses: {requests} requests of one /48, {refused} of them 429; then {wrong} of {len(fresh)} "
              "fresh clients were refused")
        if wrong:
            failures.append(f"{wrong} of {len(fresh)} clients were limited because of another client")
        if not refused:
            failures.append("a /48 network was not limited as a whole")
        return failures


def keys(binary, most):
    """Uses more idempotency keys from one address than the service keeps. The keys of another address must still be known,
    and so must the newest keys of the first one."""
    def keyed(widget):
        return add(widget).replace(b"\r\n", b'\r\nIdempotency-Key: "%b"\r\n' % widget, 1)

    kept = most // 4
    with served(binary, f"--idempotency-keys-max={most}") as service:
        modest, greedy = Connection(service.address), Connection(service.address, "127.0.0.2")
        mine = [b"mine%d" % each for each in range(kept)]
        theirs = [b"theirs%d" % each for each in range(most * 2)]
        added = [modest.ask(keyed(each))[0] for each in mine]
        flood = lambda: [greedy.ask(keyed(each))[0] for each in theirs]
        flooded, failures = beside_a_good_client(service.address, flood)
        if set(added + flooded) != {204}:
            failures.append(f"keys: the additions got the statuses {set(added + flooded)}")
        # If a key is no longer known, the addition is refused because the widget exists.
        known = [modest.ask(keyed(each))[0] for each in mine].count(204)
        newest = [greedy.ask(keyed(each))[0] for each in theirs[-kept:]].count(204)
        print(f"keys: {most} are kept, one address used {len(theirs)}: of {kept} of another {known} are known, "
              f"and {newest} of its newest {kept}")
        if (known, newest) != (kept, kept):
            failures.append(f"keys: only {known} and {newest} of {kept} are known")
        return failures


def places(binary, seconds):
    """One address, and then four, open connections as fast as possible, and either send nothing or begin bodies that never
    arrive. The good client and the probes make a new connection for each request."""
    def connect_from(address, source):
        client = socket.socket()
        client.bind((source, 0))
        client.settimeout(5)
        client.connect(address)
        return client

    begins = POST + b"Content-Length: 50\r\n\r\n{"
    failures = []
    for name, sources, sends in (("silent", ["127.0.0.2"], b""), ("half a head", ["127.0.0.2"], begins[:40]),
                                 ("busy", ["127.0.0.2"], begins),
                                 ("busy", [f"127.0.0.{each}" for each in range(2, 6)], begins)):
        with served(binary, "--connections-max=400") as service:
            opened, probes = [0], {}

            def attack():
                until, held = time.monotonic() + seconds, []
                def probe():
                    while time.monotonic() < until:
                        for path in (b"/live", b"/ready"):
                            status, _ = Connection(service.address, "127.0.0.9").ask(get(path), survives=False)
                            probes[status] = probes.get(status, 0) + 1
                        time.sleep(0.02)
                probing = threading.Thread(target=probe)
                probing.start()
                while time.monotonic() < until:
                    for source in sources:
                        with contextlib.suppress(OSError):
                            held.append(connect_from(service.address, source))
                            held[-1].sendall(sends)
                            opened[0] += 1
                    while len(held) > 4000:
                        held.pop(0).close()
                probing.join()
                for client in held:
                    client.close()
                return list(good.wrong)

            good = NewcomingClient(service.address)
            wrong_meanwhile, refused = beside(good, attack)
            print(f"places: 400, {opened[0]} connections of {len(sources)} addresses, {name}: probes were answered "
                  f"{probes}, a good client was refused {len(wrong_meanwhile)} times")
            # If all places are taken, a new connection gets a 503 or is closed immediately.
            if len(sources) == 1:
                failures += refused
            elif set(wrong_meanwhile) - {503, 0}:
                failures.append(f"places: a new connection got the statuses {set(wrong_meanwhile)}")
            # If four addresses keep a worker busy, a probe may wait longer than the service keeps an excess connection.
            lost = probes.pop(0, 0)
            if set(probes) != {200} or lost > (probes[200] / 4 if len(sources) > 1 else 0):
                failures.append(f"places: probes were answered {probes}, and {lost} not at all")
    return failures


def descriptors(binary, widgets):
    """Lets idle connections take as many file descriptors as they can. The store must still be able to make segments."""
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    arguments = "--segment-bytes=65536", "--queue-bytes-max=4096", "--queue-operations-max=16"
    with served(binary, *arguments, "--checkpoint-journal-bytes=65536", preexec_fn=few) as service:
        writer, idle, wrong = Connection(service.address), [], {}
        writer.ask(add(b"first"))

        def attack():
            idle.extend(socket.create_connection(service.address, 20, ("127.0.0.2", 0)) for _ in range(300))
            for each in range(widgets):
                status, _ = writer.ask(add(b"w%d" % each, b"n" * 500))
                if status != 204:
                    wrong[status] = wrong.get(status, 0) + 1

        _, failures = beside_a_good_client(service.address, attack)
        further, _ = Connection(service.address).ask(get(b"/live"))
        log = pathlib.Path(service.log.name).read_text()
        print(f"descriptors: 256, 300 idle connections, {widgets} widgets over many segments: {wrong or 'all'} "
              f"{'not ' if wrong else ''}added; a further connection is answered {further}")
        if wrong:
            failures.append(f"with few descriptors, additions got the statuses {wrong}")
        if further != 200:
            failures.append(f"a connection beside idle ones was answered {further}")
        if "connections_max is" not in log:
            failures.append("the log does not say that connections_max was lowered")
        for connection in idle:
            connection.close()
        return failures


def main(binary, seconds=8, *names):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    seconds = int(seconds)
    attacks = {
        refused_bodies: seconds,
        lines_of_nginx: seconds,
        unread_answers: 300,
        heads: 500,
        unread_pages: 200,
        probes: seconds,
        log_lines: seconds,
        addresses: 10_000 * seconds,
        keys: 250 * seconds,
        places: seconds,
        descriptors: 500 * seconds,
    }
    if not (shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")):
        print("NOT TESTED: the attacks through nginx, which is not installed", file=sys.stderr)
        del attacks[refused_bodies], attacks[lines_of_nginx]
    failures = []
    for attack, how_much in attacks.items():
        if not names or attack.__name__ in names:
            failures += attack(binary, how_much)
    end(failures)


main(*sys.argv[1:])
