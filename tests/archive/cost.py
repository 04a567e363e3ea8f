#!/usr/bin/env python3
"""What an archive costs: adds of closed loop, and the 99th percentile at half load, without and with one, alternating.

    python3 tests/archive/cost.py target/release/widgets 10M 3

Into a folder, checkpoints included: one is written and copied in each stretch. Needs Python alone; a machine that is otherwise
idle.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from service import Service


def load(binary, service, *arguments):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [binary, "load", f"http://127.0.0.1:{service.port}", "--mix", "add=1", "--connections", "64",
                   "--warm-up", "1s", "--json", report.name, "--force", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode != 0:
            raise SystemExit(result.stdout[-1500:] + result.stderr[-1500:])
        return result.stdout, json.load(open(report.name))


def main():
    binary, widgets, rounds = os.path.abspath(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory(dir=os.environ.get("COST_DIR")) as folder:
        base = os.path.join(folder, "base")
        subprocess.run([binary, "generate", "--widgets", widgets, "--data-dir", base], check=True, capture_output=True)
        for round in range(rounds):
            for is_archived in ([False, True] if round % 2 == 0 else [True, False]):
                directory = os.path.join(folder, "data")
                shutil.rmtree(directory, ignore_errors=True)
                subprocess.run(["cp", "-a", base, directory], check=True)
                archive = f"file://{folder}/archive-{round}" if is_archived else None
                settings = ["--checkpoint-journal-bytes", str(16 << 20), "--archive-checkpoint-journal-bytes", str(16 << 20)]
                service = Service(binary, directory, archive, settings=settings).start()
                out, peak = load(binary, service, "--rate", "max", "--duration", "6s")
                rate = float(sys.argv[4]) if len(sys.argv) > 4 else 20000
                out2, half = load(binary, service, "--rate", str(int(rate)), "--duration", "6s")
                name = "archive" if is_archived else "without"
                print(name, "|", find(peak), "|", find(half), flush=True)
                if is_archived:
                    print("   checkpoints copied:", service.metric("widgets_archive_checkpoint_timestamp_seconds") > 0,
                          "behind", service.metric("widgets_archive_behind_seconds"), flush=True)
                service.stop()
                shutil.rmtree(f"{folder}/archive-{round}", ignore_errors=True)


def find(report):
    """Rate and percentiles, wherever the report has them."""
    flat = {}

    def walk(path, value):
        if isinstance(value, dict):
            for key, each in value.items():
                walk(f"{path}.{key}", each)
        elif isinstance(value, (int, float)):
            flat[path] = value

    walk("", report)
    wanted = [key for key in flat if any(word in key for word in ("per_second", "p50", "p99"))]
    return {key: flat[key] for key in wanted[:8]}


main()
