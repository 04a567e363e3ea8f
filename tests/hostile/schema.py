#!/usr/bin/env python3
"""Checks with schemathesis that the answers of a running service match its own API document.

    tests/hostile/schema.py BINARY SCHEMATHESIS [EXAMPLES]"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

from service import Service

binary, schemathesis = (str(pathlib.Path(path).absolute()) for path in sys.argv[1:3])
examples = sys.argv[3] if len(sys.argv) > 3 else "100"
folder = tempfile.mkdtemp(prefix="widgets-schema-")
service = Service(binary, folder, "--log-filter=error")
try:
    command = [
        schemathesis, f"--config-file={pathlib.Path(__file__).resolve().parent}/schemathesis.toml",
        "run", f"{service.url}/", f"--max-examples={examples}", "--seed=1",
        "--generation-database=none", "--no-color", "--warnings=off", "--continue-on-failure",
    ]
    sys.exit(subprocess.run(command, check=False, cwd=folder).returncode)
finally:
    service.kill()
    shutil.rmtree(folder, ignore_errors=True)
