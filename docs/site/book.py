#!/usr/bin/env python3
"""Turns a copy of the documents into a book: writes its settings and its table of contents, and adjusts links.

The table of contents comes from docs/README.md, so that each page is listed in only one place."""

import pathlib
import re
import sys

root, book = map(pathlib.Path, sys.argv[1:])
source = book / "src"
# The target of links to files of the repository that are not documents.
FORGE = re.search(r'^repository = "(.*)"$', (root / "Cargo.toml").read_text(), re.MULTILINE)
FORGE = f"{FORGE[1]}/blob/main/" if FORGE else None


def title(page):
    return re.search(r"^# (.*)$", page.read_text(), re.MULTILINE)[1].replace("`", "")


listed, chapters = set(), []


def add(page, depth=0):
    page = page.resolve()
    if page in listed or not page.is_file():
        return
    listed.add(page)
    chapters.append(f"{'  ' * depth}- [{title(page)}]({page.relative_to(source)})")
    # The pages of a folder come below the folder's index.
    if page.name == "README.md" and page.parent != source.resolve() and page.parent.name != "docs":
        for below in sorted(page.parent.glob("*.md")):
            add(below, depth + 1)


add(source / "README.md")
index = source / "docs/README.md"
for link in re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", index.read_text()):
    add(index.parent / link)
for page in sorted(source.rglob("*.md")):
    if page.name != "SUMMARY.md":
        add(page)
(source / "SUMMARY.md").write_text("# Contents\n\n" + "\n".join(chapters) + "\n")

for page in listed:

    def lead(link):
        text, target = link.groups()
        path, _, anchor = target.partition("#")
        if path.endswith("README.md") and (page.parent / path).is_file():
            # mdBook renames README.md to index.md.
            return f"[{text}]({path.removesuffix('README.md')}index.md{'#' if anchor else ''}{anchor})"
        if "://" in target or target.startswith("#") or (page.parent / path).is_file():
            return link[0]
        inside = (root / page.relative_to(source.resolve())).parent / path
        inside = inside.resolve().relative_to(root.resolve())
        index = source / inside / "README.md"
        if index.is_file():
            up = "../" * len(page.parent.relative_to(source.resolve()).parts)
            return f"[{text}]({up}{inside}/index.md)"
        return f"[{text}]({FORGE}{inside})" if FORGE else text

    pieces = re.split(r"(^```.*?^```$)", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for at in range(0, len(pieces), 2):
        pieces[at] = re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)", lead, pieces[at])
    page.write_text("".join(pieces))

(book / "book.toml").write_text("""\
[book]
title = "widgets"
language = "en"

[build]
create-missing = false

[output.html]
default-theme = "light"
preferred-dark-theme = "navy"
smart-punctuation = false
no-section-label = true

[output.html.print]
enable = false

[output.html.search]
limit-results = 20
use-boolean-and = true
""")
