#!/usr/bin/env python3
"""Lets two stores repeatedly change roles by `widgets promote --switchover` under `widgets load`.

    tests/replica/switchover.py target/release/widgets 10
    tests/replica/switchover.py target/release/widgets 10 --acknowledge standby
    tests/replica/switchover.py target/release/widgets 10 --widgets 10000000 --rate 5000 --pause-max 1000

No request may fail: requests that arrive while roles change must wait, and then go to the primary that the standby names.
Every answer must be right, every acknowledged operation must be there at the end, and both stores must have the same
history. Prints how long the command took, and the pause: the longest wait of any request from the moment at which
it was due. `--pause-max` limits the pause, in milliseconds. `--widgets` sets how many widgets the store has at first.
With `--acknowledge standby`, answers wait for the standby, which must be the holder before each switchover. Exits with
1 at a failure. Needs only Python.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

from services import Service, fail, free_port, wait

READY = "/ready?role=primary"


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("binary")
    asked.add_argument("rounds", type=int)
    asked.add_argument("--widgets", type=int, default=0)
    asked.add_argument("--rate", type=int, default=200)
    asked.add_argument("--pause-max", type=float)
    asked.add_argument("--acknowledge", choices=["local", "standby"], default="local")
    asked = asked.parse_args()
    binary = str(pathlib.Path(asked.binary).resolve())
    with tempfile.TemporaryDirectory() as folder:
        run(binary, folder, asked)


def run(binary, folder, asked):
    first, second = f"{folder}/first", f"{folder}/second"
    if asked.widgets:
        made = [binary, "generate", "--widgets", str(asked.widgets), "--data-dir", first]
        subprocess.run(made, check=True, capture_output=True)
    settings = [] if asked.widgets else None
    more = {} if settings is None else {"settings": settings}
    waits = ["--acknowledge", asked.acknowledge]
    one = Service(binary, first, free_port(), *waits, **more)
    other = Service(binary, second, free_port(), "--follow", one.url, *waits, **more)
    services = [one, other]
    acknowledged_by = 'widgets_acknowledged_by{by="%s"}'
    wait("the standby follows", lambda: other.ask("GET", "/ready")[0] == 200)
    report = f"{folder}/report.json"
    # Without a warm-up, because the report does not include redirects to another primary during it.
    command = [binary, "load", one.url, "--rate", str(asked.rate), "--duration", "1h", "--warm-up", "0s", "--json", report]
    with open(f"{folder}/load.log", "wb") as log:
        load = subprocess.Popen([*command, "--audit", "all"], stdout=log, stderr=log)
    try:
        times = []
        for number in range(asked.rounds):
            before, next_one = services[number % 2], services[(number + 1) % 2]
            by = acknowledged_by % asked.acknowledge
            wait(by, lambda: before.metric(by) == 1)
            seen = before.position()
            wait("the load continues", lambda: before.position() > seen and load.poll() is None)
            time.sleep(0.5)
            began = time.monotonic()
            subprocess.run([binary, "promote", "--switchover", next_one.url], check=True, stdout=subprocess.DEVNULL)
            times.append((time.monotonic() - began) * 1000)
            if before.ask("GET", READY)[0] != 503 or next_one.ask("GET", READY)[0] != 200:
                fail("the roles did not change: the new primary must be the only one")
            seen = next_one.position()
            wait("operations are accepted", lambda: next_one.position() > seen and load.poll() is None)
            wait("the old primary follows", lambda: before.ask("GET", "/ready")[0] == 200)
        load.send_signal(2)
        status = load.wait(300)
        text = pathlib.Path(f"{folder}/load.log").read_text()
        if not pathlib.Path(report).exists():
            fail(f"the load ended with {status} without a report:\n{text}")
        stretch = json.loads(pathlib.Path(report).read_text())["stretches"][0]
        counts = {name: stretch[name] for name in ("errors", "wrong", "unsent")}
        if status != 0 or any(counts.values()):
            fail(f"the load ended with {status}, {counts}:\n{text}")
        if stretch["moves"] < asked.rounds:
            fail(f"{stretch['moves']} moves to another primary in {asked.rounds} rounds:\n{text}")
        end = max(one.position(), other.position())
        wait("both stores have every operation", lambda: one.position() >= end and other.position() >= end)
        if one.changes() != other.changes():
            fail(f"the histories of the two stores differ: {folder}")
        pause = stretch["latency"]["max_us"] / 1000
        print(
            f"{asked.rounds} switchovers, {stretch['requests']} requests: none failed; the command took at most"
            f" {max(times):.0f} ms, a request at most {pause:.0f} ms, {stretch['latency']['p50_us'] / 1000:.1f} ms at the median"
        )
        if asked.pause_max and pause > asked.pause_max:
            fail(f"a request took {pause:.0f} ms, more than {asked.pause_max:.0f} ms")
    finally:
        load.kill()
        for service in services:
            service.kill()


main()
