#!/usr/bin/env python3
"""Kills the primary under `widgets load --during-crash`, promotes its standby, and continues the load there.

    tests/replica/drill.py target/debug/widgets 20 [standby]

Each time, the promoted store's history of the old epoch must be a prefix of the primary's: with `local`, only the end
of the history may be lost, never a part in the middle. After a restart, the old primary must take no operation once it
has learned of the promotion. With `standby`, answers wait for the standby (`replication.acknowledge`): the primary's
disk is deleted, nothing that was answered may be lost according to the load's audit, and the old primary, started on a
copy of its disk, must answer nothing. Prints how long it took from the promotion to the first accepted operation, and
what was lost. Exits with 1 at a failure. Needs only Python.
"""

import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from services import FIRST_EPOCH, Proxy, Service, fail, free_port, wait

WAITS = ["--acknowledge", "standby"]


def run_round(binary, folder, chance):
    """Kills the primary once. Returns the milliseconds until the first accepted operation, how many operations were lost,
    and of how many."""
    first, second = f"{folder}/first", f"{folder}/second"
    primary = Service(binary, first, free_port())
    standby = Service(binary, second, free_port(), "--follow", primary.url)
    services = [primary, standby]
    proxy = Proxy(primary.port)
    command = [binary, "load", f"http://127.0.0.1:{proxy.port}", "--during-crash", "--duration", "10m"]
    with open(f"{folder}/load.log", "wb") as log:
        load = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait("the load", lambda: len(json.loads(primary.ask("GET", "/changes?limit=1000")[1] or "[]")) >= 500)
        time.sleep(chance.random())
        primary.kill()
        shutil.copytree(first, f"{folder}/copy")
        began = time.monotonic()
        subprocess.run([binary, "promote", standby.url], check=True, stdout=subprocess.DEVNULL)
        body = '{"widget_sn":"drill","widget_name":"","slots":["P"]}'
        wait("an accepted operation", lambda: standby.ask("POST", "/rpc/add_widget", body)[0] == 204)
        took = (time.monotonic() - began) * 1000
        proxy.target = standby.port
        # The load's own audit expects a server that loses nothing. What was lost is checked below.
        wait("the load continues there", lambda: sum(epoch != FIRST_EPOCH for epoch, _ in standby.changes()) > 100)
        load.kill()
        load.wait()
        # On another port, at which no other store can inform it of the promotion.
        old = Service(binary, f"{folder}/copy", free_port())
        services.append(old)
        had, has = [what for _, what in old.changes()], standby.changes()
        kept = [what for epoch, what in has if epoch == FIRST_EPOCH]
        if not kept or kept != had[: len(kept)]:
            fail(f"the standby's history is not a prefix of the primary's: {folder}")
        back = Service(binary, first, primary.port)
        services.append(back)
        wait("the old primary learns that it was replaced", lambda: back.ask("GET", "/ready?role=primary")[0] == 503)
        status, text, _ = back.ask("POST", "/rpc/remove_widget", '{"widget_sn":"drill"}')
        if status != 503 or b"WG507" not in text:
            fail(f"a primary that was replaced answers {status} {text}")
        return took, len(had) - len(kept), len(had)
    finally:
        load.kill()
        for service in services:
            service.kill()


def run_acknowledged_round(binary, folder, chance):
    """Kills the primary once while answers wait for the standby. Returns the same as `run_round`."""
    first, second, copy = f"{folder}/first", f"{folder}/second", f"{folder}/copy"
    primary = Service(binary, first, free_port(), *WAITS)
    standby = Service(binary, second, free_port(), "--follow", primary.url, *WAITS)
    services = [primary, standby]
    metric = 'widgets_acknowledged_by{by="%s"} 1'
    wait("a holder", lambda: (metric % "standby").encode() in primary.ask("GET", "/metrics")[1])
    proxy = Proxy(primary.port)
    report = f"{folder}/report.json"
    command = [binary, "load", f"http://127.0.0.1:{proxy.port}", "--during-crash", "--duration", "8s", "--json", report]
    with open(f"{folder}/load.log", "wb") as log:
        load = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait("the load", lambda: len(json.loads(primary.ask("GET", "/changes?limit=1000")[1] or "[]")) >= 500)
        time.sleep(chance.random())
        primary.kill()
        shutil.copytree(first, copy)
        shutil.rmtree(first)
        had = sum(1 for _ in standby.changes())
        began = time.monotonic()
        subprocess.run([binary, "promote", standby.url], check=True, stdout=subprocess.DEVNULL)
        body = '{"widget_sn":"drill","widget_name":"","slots":["P"]}'
        wait("an accepted operation", lambda: standby.ask("POST", "/rpc/add_widget", body)[0] == 204)
        took = (time.monotonic() - began) * 1000
        proxy.target = standby.port
        # The load predicts its own operations, and compares each answer with the state at the end.
        if load.wait(120) != 0:
            text = pathlib.Path(f"{folder}/load.log").read_text()
            fail(f"the load found something lost or wrong: {folder}\n{text}")
        audit = json.loads(pathlib.Path(report).read_text())["audit"]
        # On another port, at which no other store can inform it of the promotion.
        old = Service(binary, copy, free_port(), *WAITS, "--standby-timeout-ms", "200")
        services.append(old)
        for number in range(20):
            body = '{"widget_sn":"second-%d","widget_name":"","slots":["P"]}' % number
            status, text, _ = old.ask("POST", "/rpc/add_widget", body)
            if status != 503 or b"WG504" not in text:
                fail(f"a primary whose holder was promoted answers {status} {text}")
        return took, audit["acknowledged_but_lost"], had
    finally:
        load.kill()
        for service in services:
            service.kill()


def main():
    binary, rounds = str(pathlib.Path(sys.argv[1]).resolve()), int(sys.argv[2])
    waits = sys.argv[3:] == ["standby"]
    times, losses = [], []
    chance = random.Random(1)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            took, lost, had = (run_acknowledged_round if waits else run_round)(binary, folder, chance)
        times.append(took)
        losses.append(lost)
        print(f"promoted, first operation after {took:.0f} ms; lost {lost} of {had}", flush=True)
    what = "nothing that was answered" if waits else "always the end of the history"
    if waits and any(losses):
        fail(f"lost {losses}")
    print(f"{rounds} kills: at most {max(times):.0f} ms, lost at most {max(losses)}, {what}")


if __name__ == "__main__":
    main()
