#!/usr/bin/env python3
"""Makes the archive in crates/archive/tests/format_N. Run it once, with the program that writes format N.

    tests/archive/fixture.py target/debug/widgets crates/archive/tests/format_1
"""

import http.client
import json
import os
import shutil
import sys
import tempfile

from service import Service


def call(service, operation, body):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("POST", f"/rpc/{operation}", json.dumps(body), {"Content-Type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    assert status == 204, (operation, body, status)


def lines(service):
    found = []
    for row in json.loads(service.get("/widgets")[1]):
        slots = " ".join(f"{slot['port']}:{slot['peer'] or ''}" for slot in row["slots"])
        found.append(f"{row['serial_number']} {row['name']} {slots}")
    return "".join(line + "\n" for line in found)


def run_operations(service, name):
    for number in range(12):
        call(service, "add_widget", {"widget_sn": f"{name}{number}", "widget_name": f"ä {number}", "slots": ["P", "Q", "R"][:number % 4]})
    call(service, "associate_widgets", {"widget1_sn": f"{name}1", "widget2_sn": f"{name}2", "port": "P"})
    call(service, "associate_widgets", {"widget1_sn": f"{name}3", "widget2_sn": f"{name}7", "port": "R"})
    call(service, "remove_association", {"widget1_sn": f"{name}2", "widget2_sn": f"{name}1", "port": "P"})
    call(service, "remove_widget", {"widget_sn": f"{name}7"})


def main():
    binary, target = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    with tempfile.TemporaryDirectory() as folder:
        archive = f"file://{target}/archive"
        directory = os.path.join(folder, "data")
        settings = ["--archive-interval-ms", "50"]
        service = Service(binary, directory, archive, settings=settings).start()
        run_operations(service, "a")
        changes = json.loads(service.get("/changes")[1])
        with open(os.path.join(target, "earlier"), "w") as file:
            file.write(changes[-1]["position"] + "\n")
        with open(os.path.join(target, "earlier.txt"), "w") as file:
            file.write(lines(service))
        run_operations(service, "b")
        service.wait_until_archived()
        service.stop()
        # Adds a checkpoint, written by another writer.
        copied = service.command("backup", archive, "--data-dir", directory)
        assert copied.returncode == 0, copied.stderr
        service.start()
        run_operations(service, "c")
        with open(os.path.join(target, "newest.txt"), "w") as file:
            file.write(lines(service))
        service.wait_until_archived()
        service.stop()
        verified = service.command("archive", "verify", archive)
        assert verified.returncode == 0, verified.stdout
        print(verified.stdout.strip())
    lock = os.path.join(target, "archive", "manifest.lock")
    os.remove(lock)


main()
