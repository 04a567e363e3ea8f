#!/usr/bin/env python3
"""Runs, on an archive in SeaweedFS, the steps of docs/operations.md for a lost disk word for word, and the commands of
the systemd units and of the Compose recipe (the chart has the same commands: tests/deploy/charts.py).

    tests/archive/recipes.py target/debug/widgets
"""

import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

from service import S3, Service, body, check

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ARCHIVE = "s3://widgets/production"


def page():
    text = (REPOSITORY / "docs/operations.md").read_text()
    return text.split("\n## When the disk dies\n")[1].split("\n## ")[0]


def run(service, text, names):
    """Runs a command from a document or recipe, with its names replaced by those of this test."""
    for name, value in names.items():
        text = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w/])", value, text)
    words = shlex.split(text)
    check(words[0] == "widgets", text)
    done = service.command(*words[1:])
    check(done.returncode == 0, f"{text}: {(done.stdout + done.stderr).strip().splitlines()[-1:]}")
    return done


def add(service, serial_number, key=None):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": f'"{key}"'} if key else {})
    connection.request("POST", "/rpc/add_widget", body(serial_number), headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Idempotency-Replayed"), answer.getheader("Position")


def disk_dies(service, folder):
    text = page()
    (restore,) = re.findall(r"^ {7}(widgets .*)$", text, re.MULTILINE)
    check("chown -R widgets: /var/lib/widgets" in text, "the directory is given to the service's user")
    add(service, "a")
    position = add(service, "b", key="once")[2]
    service.wait_until_archived()
    service.kill()
    shutil.rmtree(service.directory)
    # Steps 2 and 3.
    names = {"s3://BUCKET/PREFIX": ARCHIVE, "/var/lib/widgets": service.directory}
    told = run(service, restore, names).stdout
    check("the archive has nothing later" in told, "the restore reports that the archive has nothing later")
    service.start()
    check(service.serial_numbers() == {"a", "b"}, "the service continues with the same configuration")
    # Step 4.
    status, changes = service.get(f"/changes?after={position}")
    check((status, json.loads(changes)) == (200, []), "a subscriber to the changes continues from its position")
    check(add(service, "b", key="once")[:2] == (204, "true"), "a retry with its idempotency key is recognised")
    cut = add(service, "c")[2]
    service.wait_until_archived()
    # A restore to a position before a mistake, into another directory.
    earlier = os.path.join(folder, "earlier")
    run(service, f"widgets restore {ARCHIVE} --data-dir {earlier} --position {position}", {})
    reader = Service(service.binary, earlier, None).start()
    check(reader.serial_numbers() == {"a", "b"}, "the store has the state before the mistake")
    check(reader.get(f"/changes?after={cut}")[0] == 410, "a subscriber that has received discarded changes gets 410")
    reader.stop()


def table(service, folder):
    """Runs the commands of the table beside the running service, and those for a stopped store on a copy."""
    commands = re.findall(r"^\| `(widgets [^`]*)` \|", page(), re.MULTILINE)
    check(len(commands) >= 7, f"{len(commands)} commands in the table")
    stopped = os.path.join(folder, "stopped")
    for number, command in enumerate(commands):
        made = "http://" in command or command.startswith("widgets restore")
        directory = os.path.join(folder, f"made-{number}") if made else stopped
        # The copy backs up to a separate archive, because otherwise it would take over the service's archive.
        url = f"s3://widgets/table-{number}" if command.startswith("widgets backup URL") else ARCHIVE
        names = {"URL": url, "http://HOST": f"http://127.0.0.1:{service.port}", "D": directory}
        if not made and not os.path.exists(stopped):
            run(service, f"widgets restore {ARCHIVE} --data-dir {stopped}", {})
        run(service, command, names)


def units(service, folder):
    for name in ("check", "prune"):
        text = (REPOSITORY / f"deployments/systemd/widgets-archive-{name}.service").read_text()
        lines = re.findall(r"^(ExecStartPre|ExecStart|ExecStopPost)=(.*)$", text, re.MULTILINE)
        check(len(lines) >= 1, f"widgets-archive-{name}.service")
        cache = os.path.join(folder, "cache")
        os.makedirs(cache, exist_ok=True)
        for _, line in lines:
            line = line.replace("${CACHE_DIRECTORY}", cache)
            if line.startswith("widgets "):
                run(service, line, {})
            else:
                subprocess.run(shlex.split(line), check=True)
        check(os.listdir(cache) == [], f"widgets-archive-{name}.service leaves nothing behind")


def compose(service, folder):
    text = (REPOSITORY / "deployments/docker-compose/docker-compose.archive.yml").read_text()
    commands = re.findall(r"^    command: \[(archive, .*)\]$", text, re.MULTILINE)
    check(len(commands) == 2, f"{len(commands)} commands of the Compose recipe")
    for command in commands:
        words = [word.strip('"') for word in command.split(", ")]
        words = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word).replace("/data", folder) for word in words]
        run(service, shlex.join(["widgets", *words]), {})
    drilled = Service(service.binary, os.path.join(folder, "drill"), None).start()
    check(drilled.serial_numbers() == service.serial_numbers(), "the drill restores the widgets of the running service")
    drilled.stop()


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        s3 = S3(os.path.join(folder, "s3"))
        s3.start()
        try:
            s3.make_bucket(None, "widgets")
            environment = s3.variables() | {"WIDGETS_ARCHIVE_URL": ARCHIVE}
            service = Service(binary, os.path.join(folder, "data"), ARCHIVE, environment).start()
            disk_dies(service, folder)
            table(service, folder)
            units(service, folder)
            compose(service, folder)
            service.stop()
        finally:
            s3.stop()


main()
