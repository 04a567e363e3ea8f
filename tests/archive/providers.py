#!/usr/bin/env python3
"""Tests the archive on servers with the protocols of Azure and Google Cloud Storage: Azurite (npm), only when started by
hand, and a stand-in for Google (google.py) in every run of the tests.

    npm install --prefix FOLDER azurite
    target/archive/bin/python tests/archive/providers.py target/debug/widgets azure FOLDER
    target/archive/bin/python tests/archive/providers.py target/debug/widgets google

A service archives, is killed, is restored and continues; a second writer takes over; the archive is pruned and
verified. Because the program refuses a bucket that ignores conditional writes, every bucket that passes supports them.
"""

import base64
import hashlib
import hmac
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time

from google import TOKEN, Google
from service import Service, Writers, check, free_port

# Azurite's built-in account, which is public and the same in every installation.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def wait_until_listening(port):
    until = time.time() + 30
    while time.time() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read()
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the emulator does not start")


def azure(folder, modules):
    """Starts Azurite with a container, and returns how to reach it."""
    port = free_port()
    binary = os.path.join(modules, "node_modules/.bin/azurite-blob")
    command = [binary, "--blobPort", str(port), "--location", os.path.join(folder, "azurite"), "--silent", "--skipApiVersionCheck",
               "--disableTelemetry"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until_listening(port)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    resource = f"/{ACCOUNT}/{ACCOUNT}/widgets\nrestype:container"
    signed = "PUT\n" + "\n" * 11 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
    connection.request("PUT", f"/{ACCOUNT}/widgets?restype=container", headers=headers)
    answer = connection.getresponse()
    check(answer.status == 201, f"a container: {answer.status} {answer.read()[:300]}")
    variables = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_ALLOW_HTTP": "true",
                 "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}"}
    return process, "az://widgets/production", variables


def google(folder, _):
    """Starts the stand-in for Google Cloud Storage with a bucket, and returns how to reach it."""
    stand_in = Google("widgets")
    return stand_in, "gs://widgets/production", stand_in.variables()


def check_archive(binary, folder, archive, variables):
    service = Service(binary, os.path.join(folder, "data"), archive, variables, ["--archive-interval-ms", "300"]).start()
    for number in range(50):
        service.add(f"a{number}")
    service.wait_until_archived()
    check(service.metric("widgets_archive_stopped") == 0, "it archives, so the bucket supports conditional writes")
    service.kill()
    shutil.rmtree(service.directory)
    restored = service.command("restore", archive, "--data-dir", service.directory)
    told = restored.stderr + open(service.errors).read()[-2000:]
    check(restored.returncode == 0, restored.stdout.splitlines()[0] if restored.stdout else told)
    service.start()
    check(len(service.serial_numbers()) == 50, "all widgets are restored")
    # Wait until this store owns the archive: a store that was restored before this might have a later epoch.
    service.wait_until_archived()
    # A second writer takes over, and the first one stops.
    other = os.path.join(folder, "other")
    check(service.command("restore", archive, "--data-dir", other).returncode == 0, "the archive is restored to another directory as well")
    second = Service(binary, other, archive, variables, ["--archive-interval-ms", "300"]).start()
    for number in range(5):
        second.add(f"b{number}")
    second.wait_until_archived()
    service.add("late")
    service.wait_for("widgets_archive_stopped", lambda stopped: stopped == 1)
    check(second.metric("widgets_archive_stopped") == 0, "the store restored last owns the archive, and the other one stopped archiving")
    service.stop()
    second.stop()
    copied = second.command("backup", archive, "--data-dir", other)
    check(copied.returncode == 0, (copied.stdout + copied.stderr).strip())
    pruned = second.command("archive", "prune", archive, "--keep", "0s")
    check(pruned.returncode == 0, (pruned.stdout + pruned.stderr).strip().replace("\n", "; "))
    verified = second.command("archive", "verify", archive)
    check(verified.returncode == 0, (verified.stdout + verified.stderr).strip())
    missing = second.command("archive", "list", archive.replace("widgets/", "nothing/"))
    check(missing.returncode == 1, missing.stderr.strip())
    logs = "".join(open(each.errors).read() for each in (service, second)) + missing.stderr
    check(KEY not in logs and TOKEN not in logs, "no credential was logged")


def check_google_specifics(binary, folder, stand_in, archive):
    """Tests what only Google has: the token, and the limit of one write a second to one name."""
    check(stand_in.statuses.get(412, 0) >= 3, f"the writes were conditional, by generations: {stand_in.statuses}")
    service = Service(binary, os.path.join(folder, "wrong"), archive + "-2", stand_in.variables("ya29.wrong"), ["--archive-interval-ms", "300"])
    service.start()
    service.add("a")
    service.wait_for('widgets_archive_failures_total{reason="refused"}', lambda failures: failures > 0)
    check(service.get("/ready")[0] == 200, "a refused token is reported, and /ready is 200")
    service.stop()
    stand_in.is_refusing = True
    service.start(stand_in.variables())
    service.wait_for('widgets_archive_failures_total{reason="refused"}', lambda failures: failures > 0)
    stand_in.is_refusing = False
    service.wait_until_archived()
    check(service.command("archive", "verify", archive + "-2", environment=stand_in.variables()).returncode == 0,
          "after the bucket refused requests for a while, the archive is complete")
    stand_in.statuses.clear()
    for number in range(50):
        service.add(f"c{number}")
        time.sleep(0.1)
    service.wait_until_archived()
    check(stand_in.statuses[200] > 5 and 429 not in stand_in.statuses, f"the manifest is never written more than once a second: {stand_in.statuses}")
    service.stop()
    prune_beside_writers(binary, folder, stand_in, archive + "-3")


def prune_beside_writers(binary, folder, stand_in, archive):
    """Prunes the archive of a service that archives all the time: both replace the same manifest."""
    settings = ["--archive-interval-ms", "300", "--archive-checkpoint-journal-bytes", str(1 << 20)]
    service = Service(binary, os.path.join(folder, "busy"), archive, stand_in.variables(), settings).start()
    writers = Writers(service, 4, "busy", name="n" * 200)
    before, replaced = 0, 0
    try:
        for _ in range(4):
            # Only after a new checkpoint is there anything to prune.
            service.wait_for("widgets_archive_checkpoint_timestamp_seconds", lambda at: at > before)
            before = service.metric("widgets_archive_checkpoint_timestamp_seconds")
            pruned = service.command("archive", "prune", archive, "--keep", "0s")
            check(pruned.returncode == 0, (pruned.stdout + pruned.stderr).strip().replace("\n", "; "))
            replaced += " 0 checkpoints" not in pruned.stdout + pruned.stderr
            # Afterwards the archiver must be able to write again.
            reached = stand_in.writes("manifest")
            until = time.time() + 30
            while stand_in.writes("manifest") < reached + 2 and time.time() < until:
                time.sleep(0.1)
            check(stand_in.writes("manifest") >= reached + 2, "the archiver continues after the pruning")
    finally:
        writers.stop()
    check(replaced > 1, f"{replaced} prunings removed a checkpoint")
    service.wait_until_archived()
    check(service.metric("widgets_archive_stopped") == 0 and service.metric("widgets_archive_gaps_total") == 0, "no gap")
    count = len(service.serial_numbers())
    service.stop()
    check(service.command("archive", "verify", archive).returncode == 0, "the pruned archive is intact")
    other = os.path.join(folder, "busy-restored")
    check(service.command("restore", archive, "--data-dir", other).returncode == 0, "the pruned archive can be restored")
    restored = Service(binary, other, None).start()
    check(len(restored.serial_numbers()) == count, f"the restored store has all {count} widgets")
    restored.stop()


def main():
    binary, kind = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        emulator = {"azure": azure, "google": google}[kind]
        process, archive, variables = emulator(folder, sys.argv[3] if len(sys.argv) > 3 else None)
        try:
            check_archive(binary, folder, archive, variables)
            if kind == "google":
                check_google_specifics(binary, folder, process, archive)
        finally:
            process.terminate()
            process.wait()


main()
