"""Checks Terraform files without Terraform: they are HCL, everything that they refer to exists, and everything that they
declare is used.

usage: terraform.py DIRECTORY...
"""

import re
import sys
from pathlib import Path

import hcl2

# The first words of references, besides kinds of resources.
BUILT_IN = {"each", "self", "count", "path", "terraform"}
BOUND = re.compile(r"\bfor\s+(\w+)(?:\s*,\s*(\w+))?\s+in\b")
REFERENCE = re.compile(r"(?<![\w.\"-])(data\.|ephemeral\.)?([a-z]\w*)\.([A-Za-z_][\w-]*)")


def plain(name):
    """Returns a label or a key without the quotes that the parser leaves."""
    return name.strip('"')


def texts(value):
    """Yields every text anywhere in a value, except comments."""
    if isinstance(value, dict):
        for key, below in value.items():
            if not key.startswith("__"):
                yield from texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from texts(below)
    elif isinstance(value, str):
        yield value


def check(directory):
    declared, used, problems = set(), set(), []
    for path in sorted(directory.glob("*.tf")):
        try:
            with path.open(encoding="utf-8") as file:
                content = hcl2.load(file)
        except Exception as error:  # the parser's errors have no common base
            problems.append(f"{path}: {str(error).splitlines()[0]}")
            continue
        for kind, blocks in content.items():
            if kind.startswith("__"):
                continue
            for block in blocks:
                for label, body in block.items():
                    label = plain(label)
                    if kind == "variable":
                        declared.add(f"var.{label}")
                        if "description" not in body:
                            problems.append(f"{path}: variable {label} has no description")
                    elif kind == "locals" and not label.startswith("__"):
                        declared.add(f"local.{label}")
                    elif kind in ("resource", "data", "ephemeral"):
                        prefix = "" if kind == "resource" else f"{kind}."
                        declared.update(f"{prefix}{label}.{plain(name)}" for name in body if not name.startswith("__"))
        for text in texts(content):
            # Names that `for` binds are not declared in the files.
            bound = {name for names in BOUND.findall(text) for name in names}
            for prefix, kind, name in REFERENCE.findall(text):
                if kind not in BUILT_IN | bound:
                    used.add((f"{prefix}{kind}.{name}", path.name))
    names = {name for name, _ in used}
    kinds = {name.rsplit(".", 1)[0] for name in declared}
    for name, path in sorted(used):
        kind = name.rsplit(".", 1)[0]
        if name not in declared and (kind in kinds or kind.startswith(("var", "local", "aws_", "data.", "ephemeral."))):
            problems.append(f"{directory / path}: there is no {name}")
    for name in sorted(declared - names):
        if name.startswith(("var.", "local.")):
            problems.append(f"{directory}: nothing uses {name}")
    if not declared:
        problems.append(f"{directory}: it declares nothing")
    return problems


def main():
    problems = [problem for directory in sys.argv[1:] for problem in check(Path(directory))]
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
