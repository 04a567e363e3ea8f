#!/usr/bin/env python3
"""Prints the table of docs/security.md: runs the attacks that have a good client beside them, with a row for each.

    tests/hostile/table.py BINARY [SECONDS]

The scripts' own output goes to standard error unchanged; the table, in Markdown, comes at the end. Exits with 1 if a
script failed."""

import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
NUMBER = r"([\d.]+)"


def scripts(binary, seconds):
    yield "siege.py", binary, str(seconds)
    yield "rows.py", binary, str(100 * seconds // 2)
    yield "requests.py", binary, str(12_500 * seconds)
    yield "http2.py", binary, str(37_500 * seconds)


class Row:
    """One attack, parsed from the lines that describe it."""

    def __init__(self):
        self.p99, self.refused, self.name, self.memory, self.log = {}, "", "", [], []

    def take(self, line):
        if found := re.match(rf"  (before|during|after) +p99 +{NUMBER} ms", line):
            self.p99[found[1]] = found[2]
        elif found := re.match(r"good client: (\d+) requests, (\d+) not applied", line):
            self.refused = f"{found[2]} of {int(found[1]):,}"
        elif found := re.match(rf"  memory {NUMBER} MiB at first, {NUMBER} MiB at most; (\d+) bytes of log", line):
            self.memory.append((float(found[1]), float(found[2])))
            self.log.append(int(found[3]))
        elif self.refused and not self.name and line[:1].strip():
            self.name = re.sub(r" +:", ":", re.sub(r" {2,}", " ", line.strip()))

    def __str__(self):
        p99 = " | ".join(f"{float(self.p99.get(phase, 0)):.0f}" for phase in ("before", "during", "after"))
        # Of several replicas, the one that took the most memory.
        first, most = max(self.memory, key=lambda pair: pair[1], default=(0, 0))
        return f"| {self.name} | {p99} | {self.refused} | {first:.0f}, {most:.0f} MiB | {sum(self.log):,} |"


def main(binary, seconds=8):
    rows, failed = [], []
    for script, *arguments in scripts(binary, int(seconds)):
        command = [sys.executable, "-u", str(HERE / script), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            for line in run.stdout:
                sys.stderr.write(line)
                if re.match(r"  before +p99", line):
                    rows.append(Row())
                if rows:
                    rows[-1].take(line.rstrip("\n"))
        if run.returncode:
            failed.append(script)
    print("| attack | p99 before | during | after | refused | memory at first, at most | log |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(row)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


main(*sys.argv[1:])
