#!/usr/bin/env python3
"""What a standby costs, and how long a promotion and a switchover take: the figures of docs/performance.md.

    tests/replica/figures.py target/release/widgets --widgets 10000000 --rounds 5

Both stores are on this machine, so the standby takes processor time and disk from its primary, as it would not on a machine of
its own. Needs Python alone, and a quiet machine; some GB of disk for ten million widgets.

- `widgets load --rate max --mix add=1`, in turn without a standby and with one that follows, each time with two fresh
  directories: the medians of their rates, and what of it is lost.
- The same with `--rate` of `--share` (half) of what it takes without one: the medians of p50 and p99.
- The store of so many widgets: the primary killed, from the start of `widgets promote` to the first accepted operation.
- `tests/replica/switchover.py` does the switchovers, with the same `--widgets`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from services import Service, free_port, wait


def load(binary, url, folder, seconds, rate):
    report = f"{folder}/report.json"
    command = [binary, "load", url, "--rate", rate, "--duration", f"{seconds}s", "--mix", "add=1"]
    more = ["--connections", "64", "--audit", "none", "--json", report]
    done = subprocess.run([*command, *more], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"figures: the load ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(pathlib.Path(report).read_text())["stretches"][0]


def with_standby(binary, standbys, seconds, rate):
    """One run on an empty store, that so many follow."""
    with tempfile.TemporaryDirectory() as folder:
        primary = Service(binary, f"{folder}/primary", free_port(), settings=[])
        services = [primary]
        try:
            for number in range(standbys):
                services.append(Service(binary, f"{folder}/{number}", free_port(), "--follow", primary.url, settings=[]))
            for standby in services[1:]:
                wait("it follows", lambda: standby.ask("GET", "/ready")[0] == 200)
            stretch = load(binary, primary.url, folder, seconds, rate)
            end = primary.position()
            began = time.monotonic()
            for standby in services[1:]:
                wait("it has everything", lambda: standby.position() >= end, 300)
            return stretch, time.monotonic() - began
        finally:
            for service in services:
                service.kill()


def costs(binary, rounds, seconds, share):
    rates = {0: [], 1: []}
    for _ in range(rounds):
        for standbys in (0, 1):
            stretch, late = with_standby(binary, standbys, seconds, "max")
            rates[standbys].append(stretch["requests_per_second"])
            print(f"{standbys} standbys: {rates[standbys][-1]:.0f} adds a second; it had everything {late:.1f} s after", flush=True)
    alone, beside = [statistics.median(rates[standbys]) for standbys in (0, 1)]
    print(f"adds a second, closed loop: {alone:.0f} alone, {beside:.0f} with a standby: {(1 - beside / alone) * 100:.1f} % less")
    rate = str(int(alone * share))
    for standbys in (0, 1):
        stretches = [with_standby(binary, standbys, seconds, rate)[0] for _ in range(rounds)]
        at = [statistics.median(each["latency"][name] for each in stretches) / 1000 for name in ("p50_us", "p99_us")]
        reached = statistics.median(each["requests_per_second"] for each in stretches)
        print(f"at {rate} a second, {standbys} standbys: {reached:.0f} reached, p50 {at[0]:.2f} ms, p99 {at[1]:.2f} ms", flush=True)


def promotions(binary, widgets, rounds):
    times = []
    with tempfile.TemporaryDirectory() as folder:
        made = [binary, "generate", "--widgets", str(widgets), "--data-dir", f"{folder}/0"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        primary = Service(binary, f"{folder}/0", free_port(), settings=[])
        for number in range(1, rounds + 1):
            began = time.monotonic()
            standby = Service(binary, f"{folder}/{number}", free_port(), "--follow", primary.url, settings=[])
            wait("it follows", lambda: standby.ask("GET", "/ready")[0] == 200, 600)
            copied = time.monotonic() - began
            primary.kill()
            began = time.monotonic()
            subprocess.run([binary, "promote", standby.url], check=True, stdout=subprocess.DEVNULL)
            wait("an accepted operation", lambda: standby.add(f"first-{number}")[0] == 204)
            times.append((time.monotonic() - began) * 1000)
            print(f"{widgets} widgets: copied in {copied:.1f} s, promoted to the first operation in {times[-1]:.0f} ms", flush=True)
            subprocess.run(["rm", "-r", f"{folder}/{number - 1}"], check=True)
            primary = standby
        primary.kill()
    print(f"promotion to the first accepted operation with {widgets} widgets: at most {max(times):.0f} ms of {rounds}")


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("binary")
    asked.add_argument("--widgets", type=int, default=10_000_000)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--seconds", type=int, default=10)
    asked.add_argument("--share", type=float, default=0.5)
    asked = asked.parse_args()
    binary = str(pathlib.Path(asked.binary).resolve())
    costs(binary, asked.rounds, asked.seconds, asked.share)
    promotions(binary, asked.widgets, min(asked.rounds, 3))


main()
