#!/usr/bin/env python3
"""Tests two stores on two hosts (network namespaces) with faults of the network between them: unplugged, half-open, slow.

    tests/replica/network.py target/debug/widgets 3

Writers can always reach both hosts. The faults affect a separate link between the two hosts, while roles change
(`widgets promote --switchover`) and while they do not. If the command cannot report the outcome, the test follows
docs/operations.md. After each round there must be exactly one primary, every addition that a writer got acknowledged must
be there once, and both stores must have the same history. Needs root, Python and the Debian packages iproute2 and
iptables.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

from services import SETTINGS, Service, fail, wait

PORT = 3000
# The addresses at which writers reach the two hosts, and those at which the hosts reach each other.
OUTSIDE = ["10.213.1.2", "10.213.2.2"]
BETWEEN = ["10.213.3.1", "10.213.3.2"]
LINK = "between"


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode != 0:
        fail(f"{' '.join(command)}: {done.stderr}")
    return done


class Network:
    """Two namespaces, each with a route to this one, and a link between the two."""

    def __init__(self):
        self.names = [f"w{os.getpid()}{side}" for side in "ab"]
        self.outer = [f"w{os.getpid()}{side}" for side in "cd"]
        for name, outer, address in zip(self.names, self.outer, OUTSIDE):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", "out", "netns", name)
            run("ip", "address", "add", f"{address.rsplit('.', 1)[0]}.1/24", "dev", outer)
            run("ip", "link", "set", outer, "up")
            self.inside(name, "ip", "address", "add", f"{address}/24", "dev", "out")
            for device in ("lo", "out"):
                self.inside(name, "ip", "link", "set", device, "up")
        one, other = self.names
        self.inside(one, "ip", "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", other)
        for name, address in zip(self.names, BETWEEN):
            self.inside(name, "ip", "address", "add", f"{address}/24", "dev", LINK)
            self.inside(name, "ip", "link", "set", LINK, "up")

    def inside(self, name, *command):
        return run("ip", "netns", "exec", name, *command)

    def unplug(self):
        self.inside(self.names[0], "ip", "link", "set", LINK, "down")

    def drop_from(self, host):
        """Drops what this host sends to the other one, but not what the other one sends."""
        other = self.names[1 - host]
        self.inside(other, "iptables", "-A", "INPUT", "-i", LINK, "-j", "DROP")

    def slow(self):
        for name in self.names:
            shape = ["rate", "256kbit", "burst", "16kbit", "latency", "2s"]
            self.inside(name, "tc", "qdisc", "add", "dev", LINK, "root", "tbf", *shape)

    def heal(self):
        self.inside(self.names[0], "ip", "link", "set", LINK, "up")
        for name in self.names:
            self.inside(name, "iptables", "-F", "INPUT")
            run("ip", "netns", "exec", name, "tc", "qdisc", "del", "dev", LINK, "root", check=False)

    def close(self):
        for name, outer in zip(self.names, self.outer):
            run("ip", "link", "del", outer, check=False)
            run("ip", "netns", "del", name, check=False)


class Writer(threading.Thread):
    """Adds widgets to whichever store accepts them, and records the answers."""

    def __init__(self, number, services):
        super().__init__(daemon=True)
        self.number, self.services = number, services
        self.applied, self.unknown, self.stopping = [], [], False

    def run(self):
        at, count = 0, 0
        while not self.stopping:
            serial_number = f"w{self.number}-{count}"
            status, text, _ = self.services[at].add(serial_number)
            if status == 204:
                self.applied.append(serial_number)
                count += 1
                continue
            if status == 0 or b"WG505" in text:
                self.unknown.append(serial_number)
                count += 1
            elif status != 503:
                fail(f"the addition of {serial_number} is answered {status} {text}")
            # Turns to the other store, with the same widget if it was not added.
            at = 1 - at
            time.sleep(0.01)


def cause_fault(network, chance, what, host):
    """Causes a fault of the network for a while."""
    time.sleep(chance.random() * 0.03)
    {"unplugged": network.unplug, "half-open": lambda: network.drop_from(host), "slow": network.slow}[what]()
    time.sleep(chance.uniform(0.5, 2.5))
    network.heal()


def primaries(services):
    return [number for number, service in enumerate(services) if service.is_primary()]


def ensure_primary(binary, network, services, standby):
    """Follows docs/operations.md for a command that ended with status 4: promotes the standby, but only if neither store is the
    primary within 5 s. Returns the primary, and whether it was promoted."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        found = primaries(services)
        if len(found) == 1:
            return found[0], False
        if len(found) > 1:
            fail("there are two primaries")
        time.sleep(0.05)
    promote(binary, network, standby)
    return standby, True


def promote(binary, network, host, *arguments):
    inside = ["ip", "netns", "exec", network.names[host]]
    return run(*inside, binary, "promote", *arguments, f"http://{BETWEEN[host]}:{PORT}", check=False)


def history(services):
    """Waits until both stores have everything, and returns their common history."""
    wait("both stores have the same position", lambda: services[0].position() == services[1].position(), 120)
    one, other = [service.changes() for service in services]
    if one != other:
        fail("the histories of the two stores differ")
    return [json.loads(what).get("widget_sn") for _, what in one]


def run_rounds(binary, folder, network, rounds):
    chance = random.Random(2)
    common = [*SETTINGS, "--allow-public-without-auth"]
    services = [
        Service(binary, f"{folder}/{host}", PORT, *more, host=OUTSIDE[host], listen="0.0.0.0", namespace=network.names[host], settings=common)
        for host, more in enumerate(([], ["--follow", f"http://{BETWEEN[0]}:{PORT}"]))
    ]
    writers = [Writer(number, services) for number in range(2)]
    try:
        wait("the standby follows", lambda: services[1].ask("GET", "/ready")[0] == 200)
        for writer in writers:
            writer.start()
        primary, ends = 0, {}
        for number in range(rounds):
            for what in ("unplugged", "half-open", "slow"):
                for switches in (False, True):
                    standby = 1 - primary
                    host = chance.choice([0, 1])
                    trouble = threading.Thread(target=cause_fault, args=(network, chance, what, host))
                    trouble.start()
                    code = "none"
                    if switches:
                        done = promote(binary, network, standby, "--switchover", "--within", "1s")
                        code = done.returncode
                        if code not in (0, 1, 4):
                            fail(f"{what}: the switchover ends with {code}: {done.stderr}")
                    trouble.join()
                    primary, promoted = ensure_primary(binary, network, services, standby)
                    if promoted and code != 4:
                        fail(f"{what}: the switchover ends with {code}, and neither store is the primary")
                    key = f"{what}, switchover {code}" + (", promoted" if promoted else "")
                    ends[key] = ends.get(key, 0) + 1
                    before = len(writers[0].applied)
                    wait("operations are accepted", lambda: len(writers[0].applied) > before)
                    # If the link was down, the new primary informs the other store again later.
                    wait("the other store follows", lambda: services[1 - primary].ask("GET", "/ready")[0] == 200)
                    standby_of = services[1 - primary]
                    seen = services[primary].position()
                    wait("the standby has every operation", lambda: standby_of.position() >= seen)
        for writer in writers:
            writer.stopping = True
        for writer in writers:
            writer.join()
        there = history(services)
        if len(there) != len(set(there)):
            fail("a widget was added twice")
        applied = [each for writer in writers for each in writer.applied]
        lost = set(applied) - set(there)
        if lost:
            fail(f"{len(lost)} of {len(applied)} acknowledged are lost: {sorted(lost)[:5]}")
        unknown = sum(len(writer.unknown) for writer in writers)
        for key in sorted(ends):
            print(f"{key}: {ends[key]}")
        print(f"{len(applied)} acknowledged and {unknown} of unknown fate: nothing lost, one history")
    finally:
        for service in services:
            service.kill()


def main():
    binary, rounds = str(pathlib.Path(sys.argv[1]).resolve()), int(sys.argv[2])
    network = Network()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_rounds(binary, folder, network, rounds)
    finally:
        network.close()


main()
