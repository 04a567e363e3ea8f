#!/usr/bin/env python3
"""Checks the site: every link leads to an existing file and anchor, nothing is loaded from elsewhere, and search has an index."""

import html.parser
import pathlib
import sys
import urllib.parse

site = pathlib.Path(sys.argv[1]).resolve()
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if LOADED.get(tag) in attributes:
            self.loaded.append(attributes[LOADED[tag]])


pages = {path: Page(path) for path in site.rglob("*.html")}
problems, checked = [], 0
for path, page in pages.items():
    # Its links assume that the site is at the root of its host.
    if path.name == "404.html":
        continue
    for link in page.links + page.loaded:
        name, url = path.relative_to(site), urllib.parse.urlsplit(link)
        if url.scheme or url.netloc:
            if link in page.loaded:
                problems.append(f"{name}: {link} is loaded from elsewhere")
            continue
        target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
        checked += 1
        if not target.exists():
            problems.append(f"{name}: {link} leads nowhere")
        elif url.fragment and target in pages and urllib.parse.unquote(url.fragment) not in pages[target].anchors:
            problems.append(f"{name}: {link} has no heading")
if not list(site.glob("searchindex*.js")):
    problems.append("there is no index to search")
if len(pages) < 20 or checked < 1000:
    problems.append(f"only {len(pages)} pages with {checked} links")
for problem in sorted(set(problems)):
    print(problem, file=sys.stderr)
sys.exit(bool(problems))
