#!/usr/bin/env python3
"""Measures how long a promotion takes, from the start of `widgets promote` to the first operation that the new primary
accepts.

    tests/replica/promotion.py target/release/widgets 3 --widgets 10000000

Each time, kills the primary once its standby has everything and promotes the standby; a new standby then copies its
store. switchover.py measures the pause of a switchover, cost.py the cost of a standby. Needs only Python, and some GB
of disk for ten million widgets.
"""

import argparse
import pathlib
import shutil
import subprocess
import tempfile
import time

from services import Service, fail, free_port, wait


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("binary")
    asked.add_argument("rounds", type=int)
    asked.add_argument("--widgets", type=int, default=20_000)
    asked = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(str(pathlib.Path(asked.binary).resolve()), folder, asked)


def run(binary, folder, asked):
    command = [binary, "generate", "--widgets", str(asked.widgets), "--data-dir", f"{folder}/0"]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        fail(f"the store could not be generated: {made.stderr}")
    primary, times = Service(binary, f"{folder}/0", free_port(), settings=[]), []
    try:
        for number in range(1, asked.rounds + 1):
            began = time.monotonic()
            standby = Service(binary, f"{folder}/{number}", free_port(), "--follow", primary.url, settings=[])
            wait("the standby follows", lambda: standby.ask("GET", "/ready")[0] == 200, 600)
            copied = time.monotonic() - began
            primary.kill()
            primary = standby
            began = time.monotonic()
            subprocess.run([binary, "promote", primary.url], check=True, stdout=subprocess.DEVNULL)
            wait("an accepted operation", lambda: primary.add(f"first-{number}")[0] == 204)
            times.append((time.monotonic() - began) * 1000)
            print(f"{asked.widgets} widgets: copied in {copied:.1f} s, first operation after {times[-1]:.0f} ms", flush=True)
            shutil.rmtree(f"{folder}/{number - 1}")
    finally:
        primary.kill()
    print(f"{asked.rounds} promotions: at most {max(times):.0f} ms to the first accepted operation")


main()
