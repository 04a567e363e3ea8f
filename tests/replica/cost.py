#!/usr/bin/env python3
"""Measures what a standby costs, with both stores on this machine: adds in a closed loop and their median latency without a
standby, with one, and when answers wait for it.

    tests/replica/cost.py target/release/widgets FOLDER 3
    tests/replica/cost.py target/release/widgets FOLDER 5 --pinned

Rounds alternate between `alone` (no standby), `local` (one standby, answers wait only for the primary) and `standby`
(answers also wait for the standby). Then measures the median latency at half the rate of `alone`. Both services and the
load share the machine, which must be otherwise idle; with two machines the standby's work would be on the other one.
Exits with 1 if `local` loses more than 5 % of the adds, or `standby` loses more than 40 % or its median latency in the
closed loop is more than twice as long. COST_SECONDS: how long each measurement takes.

With `--pinned`, measures what a standby costs the primary alone: the primary has one core, and the load (512
connections) and the standby share another, in rounds of `alone` and `local`. Also prints the primary's CPU time per add
and how much of its core it used: if that is less than the whole core, the other core limits the adds. Exits with 1 if
an add takes more than 5 % more of the primary's CPU time with a standby.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from services import free_port, wait

SECONDS = os.environ.get("COST_SECONDS", "8")
KINDS = ["alone", "local", "standby"]


def pinned(core, command):
    """Returns the command, bound to the core if one is given."""
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


class Service:
    def __init__(self, binary, directory, *arguments, core=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [binary, "serve", "--data-dir", directory, "--listen", f"127.0.0.1:{self.port}", *arguments]
        command = pinned(core, command)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait("the service", lambda: self.get("/live") is not None)

    def get(self, path):
        try:
            return urllib.request.urlopen(self.url + path, timeout=20).read().decode()
        except OSError:
            return None

    def processor_seconds(self):
        """Returns the CPU time that its threads have used so far."""
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def load(binary, service, rate, core=None, connections=64):
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [binary, "load", service.url, "--mix", "add=1", "--connections", str(connections), "--rate", rate,
                   "--warm-up", "1s", "--duration", f"{SECONDS}s", "--json", report]
        result = subprocess.run(pinned(core, command), capture_output=True, text=True, timeout=300)
        if result.returncode != 0:
            raise SystemExit(result.stdout[-1500:] + result.stderr[-1500:])
        stretch = json.load(open(report))["stretches"][-1]
        return stretch["requests_per_second"], stretch["latency"]["p50_us"] / 1000, stretch["latency"]["p99_us"] / 1000


def measure_pinned(binary, folder, kind):
    """Returns the adds per second, the primary's microseconds per add, and how much of its core it used."""
    primary_core, other_core = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory(dir=folder) as own:
        # With pacing, batches would depend on how scarce CPU time is, which the standby changes.
        services = [Service(binary, f"{own}/first", "--pacing", "never", core=primary_core)]
        try:
            if kind == "local":
                services.append(Service(binary, f"{own}/second", "--follow", services[0].url, core=other_core))
                wait("a standby", lambda: "widgets_replication_standbys 1" in services[0].get("/metrics"))
            used, had, began = services[0].processor_seconds(), count(services[0]), time.monotonic()
            rate = load(binary, services[0], "max", other_core, 512)[0]
            used, had = services[0].processor_seconds() - used, count(services[0]) - had
            return rate, used / had * 1e6, used / (time.monotonic() - began)
        finally:
            for service in services:
                service.stop()


def count(service):
    """Returns how many widgets the store has."""
    for line in service.get("/metrics").splitlines():
        if line.startswith("widgets_widgets "):
            return float(line.rsplit(" ", 1)[1])
    raise SystemExit("no metric widgets_widgets")


def run_pinned(binary, folder, rounds):
    found = {kind: [] for kind in KINDS[:2]}
    for round in range(rounds):
        for kind in KINDS[:2] if round % 2 == 0 else KINDS[1::-1]:
            one = measure_pinned(binary, folder, kind)
            found[kind].append(one)
            print(f"{kind:8} {one[0]:9,.0f} adds/s, {one[1]:.2f} us of the primary's processor for one, {one[2]:.0%} of its core", flush=True)
    alone, local = ([statistics.median(column) for column in zip(*found[kind])] for kind in KINDS[:2])
    print(f"medians: with a standby {local[0] / alone[0]:.1%} of the adds alone; an add costs the primary {local[1] / alone[1]:.1%} of the "
          f"processor time ({alone[1]:.2f} and {local[1]:.2f} us)")
    return 1 if local[1] > 1.05 * alone[1] else 0


def measure(binary, folder, kind, half):
    with tempfile.TemporaryDirectory(dir=folder) as own:
        acknowledge = ["--acknowledge", "standby"] if kind == "standby" else []
        services = [Service(binary, f"{own}/first", *acknowledge)]
        try:
            if kind != "alone":
                services.append(Service(binary, f"{own}/second", "--follow", services[0].url, *acknowledge))
                # Before the measurement, the standby must follow the primary and, with `standby`, answers must wait for it.
                by = f'widgets_acknowledged_by{{by="{kind}"}} 1'
                followed = "widgets_replication_standbys 1"
                wait("a standby", lambda: all(each in services[0].get("/metrics") for each in (by, followed)))
            peak = load(binary, services[0], "max")
            half = half or peak[0] / 2
            return half, (*peak, *load(binary, services[0], str(int(half)))[1:])
        finally:
            for service in services:
                service.stop()


def stop(*_):
    raise SystemExit("ended by a signal")


def main():
    # Ends the started processes as well.
    signal.signal(signal.SIGTERM, stop)
    binary, folder, rounds = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), int(sys.argv[3])
    os.makedirs(folder, exist_ok=True)
    if sys.argv[4:] == ["--pinned"]:
        return run_pinned(binary, folder, rounds)
    half, found = 0, {kind: [] for kind in KINDS}
    for round in range(rounds):
        for kind in KINDS if round % 2 == 0 else [KINDS[0], *reversed(KINDS[1:])]:
            began = time.monotonic()
            half, one = measure(binary, folder, kind, half)
            found[kind].append(one)
            print(f"{kind:8} {one[0]:9,.0f} adds/s p50 {one[1]:.2f} ms, p99 {one[2]:.2f} ms   at {half:,.0f}/s p50 {one[3]:.2f} ms, "
                  f"p99 {one[4]:.2f} ms   ({time.monotonic() - began:.0f} s)", flush=True)
    medians = {kind: [statistics.median(column) for column in zip(*found[kind])] for kind in KINDS}
    alone, local, standby = (medians[kind] for kind in KINDS)
    print(f"medians: local {local[0] / alone[0]:.1%} of the adds alone, standby {standby[0] / alone[0]:.1%} with a median latency of "
          f"{standby[1] / alone[1]:.2f} times; at half the rate {standby[3] / alone[3]:.2f} times ({alone[3]:.2f} and {standby[3]:.2f} ms)")
    return 1 if local[0] < 0.95 * alone[0] or standby[0] < 0.6 * alone[0] or standby[1] > 2 * alone[1] else 0


sys.exit(main())
