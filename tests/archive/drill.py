#!/usr/bin/env python3
"""Repeatedly kills the service under load with kill -9, deletes its data directory and restores it from the archive.

    tests/archive/drill.py target/debug/widgets 20

No operation may be lost that was answered more than the archive's interval before the kill. Only the end of the history
may be lost: if an answered operation is missing, no operation sent after that answer may be present. The restored store
must continue to work. Exits with 1 if not. Uses SeaweedFS if its wheel is installed beside this Python, and otherwise a
folder.
"""

import os
import subprocess
import sys
import tempfile
import time

from service import S3, Service, Writers, remove

INTERVAL = 1.0
# How long two writes to a bucket may take, in seconds, on a machine that also runs everything else.
GRACE = 0.5


def main():
    binary, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        s3 = S3(os.path.join(folder, "s3"))
        environment = {}
        archive = "file://" + os.path.join(folder, "archive")
        if os.path.exists(s3.weed):
            s3.start()
            environment, archive = s3.variables(), "s3://drill/widgets"
            s3.make_bucket(environment, "drill")
        try:
            drill(binary, rounds, folder, archive, environment)
        finally:
            s3.stop()


def drill(binary, rounds, folder, archive, environment):
    directory = os.path.join(folder, "data")
    service = Service(binary, directory, archive, environment,
                      ["--checkpoint-journal-bytes", "262144", "--segment-bytes", "8388608",
                       "--archive-checkpoint-journal-bytes", "1048576"]).start()
    # Writing the first object to a new bucket may take seconds, and without any object there is nothing to restore.
    service.add("first")
    service.wait_for("widgets_archive_objects_total", lambda objects: objects > 0)
    service.wait_until_archived()
    expected, worst, lost_all, answered_all = {"first"}, 0.0, 0, 0
    for round in range(rounds):
        pressure = subprocess.Popen([binary, "load", "--rate", "2000", "--duration", "60s", "--warm-up", "0s",
                                     "--seed", str(round), f"http://127.0.0.1:{service.port}"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        writers = Writers(service, 6, f"r{round}")
        time.sleep(2 + round % 4 * 0.3)
        killed = time.time()
        service.kill()
        writers.stop()
        pressure.kill()
        pressure.wait()
        remove(directory)
        restored = service.command("restore", archive, "--data-dir", directory)
        if restored.returncode != 0:
            told = open(service.errors).read()[-4000:]
            raise SystemExit(f"round {round}: {restored.stderr}The service said:\n{told}")
        service.start()
        there = service.serial_numbers()
        missing = expected - there
        if missing:
            raise SystemExit(f"round {round}: {len(missing)} widgets of earlier rounds are missing, such as {missing.pop()}")
        lost = {number: at for number, at in writers.answered.items() if number not in there}
        age = killed - min(lost.values(), default=killed)
        worst, lost_all, answered_all = max(worst, age), lost_all + len(lost), answered_all + len(writers.answered)
        print(f"round {round}: {len(writers.answered)} answered, {len(lost)} lost, the oldest {age:.2f} s before the kill; "
              f"{restored.stdout.splitlines()[0]}", flush=True)
        if age > INTERVAL + GRACE:
            raise SystemExit(f"round {round}: an operation that was answered {age:.2f} s before the kill was lost")
        kept = [at for number, at in writers.sent.items() if number in there]
        if lost and kept and max(kept) > min(lost.values()):
            raise SystemExit(f"round {round}: an operation was lost, but one that was sent after its answer was not")
        expected = {number for number in there if number == "first" or number.startswith("r")}
        # Otherwise the next kill might come before this process has archived anything.
        service.wait_until_archived()
    service.stop()
    verified = service.command("archive", "verify", archive)
    if verified.returncode != 0:
        raise SystemExit(verified.stdout + verified.stderr)
    print(f"{rounds} kills: {answered_all} operations answered, {lost_all} lost, all of them at the end of the history and "
          f"answered at most {worst:.2f} s before the kill. {verified.stdout.strip()}")


main()
