#!/usr/bin/env python3
"""Opens the pages of the documentation's site in a browser, and looks for links that lead nowhere.

usage: site.py [--screenshots FOLDER] SITE

SITE is the folder that Scripts/package/docs.sh makes. The data of every page is read: each link leads to a page, to a part of
one, or to a file; and each tutorial is linked from an article of a library, and links to one. Then a server of this program serves the site, below its base path if it has one, and a browser follows the
links from the front page on, to all tutorials, articles, modules and types; members of types are too many. An empty page, an
error of JavaScript, a request that fails and a picture that does not show are failures.
"""
import argparse
import functools
import http.server
import json
import pathlib
import re
import sys
import threading
import time
import urllib.parse

import browser

# Becomes true once the page shows its title.
SHOWN = "!!document.querySelector('h1, h2.title')?.textContent.trim()"
FOUND = """JSON.stringify({
    links: [...document.querySelectorAll('a[href]')].map(link => link.href),
    text: document.body.textContent.length,
    pictures: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
})"""


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def send_error(self, code, *arguments, **named):
        self.server.failures.append(f"{self.path}: {code}")
        super().send_error(code, *arguments, **named)

    def translate_path(self, path):
        base = self.server.base
        return super().translate_path("/" + path.removeprefix(base) if path.startswith(base) else "/not-below-the-base-path")


def serve(site, base):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    server.base, server.failures = base, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# MARK: The data of all pages


def parts(value):
    """All objects of a JSON document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from parts(each)


@functools.cache
def anchors(data):
    found = set()
    for part in parts(json.loads(data.read_text())):
        found.add(part.get("anchor"))
        # The sections of tutorials have no anchor but their title.
        if isinstance(part.get("title"), str):
            found.add(re.sub(r"\s+", "-", part["title"].strip()))
    return found


def dead_links(site, document):
    """The links of a page's data that lead nowhere."""
    chapters = {module.get("reference") for module in document.get("hierarchy", {}).get("modules") or []}
    for reference in document.get("references", {}).values():
        if reference.get("identifier") in chapters:
            continue  # It has a title, and no page.
        for target in [reference.get("url", "")] + [variant.get("url", "") for variant in reference.get("variants", [])]:
            place, _, anchor = target.partition("#")
            if not place.startswith("/"):
                continue
            file = site / place.lstrip("/")
            if not place.startswith(("/documentation", "/tutorials")):
                if not file.exists():
                    yield target
                continue
            data = site / "data" / f"{place.lstrip('/')}.json"
            if not (data.exists() and (file / "index.html").exists()):
                yield target
            elif anchor and urllib.parse.unquote(anchor) not in anchors(data):
                yield target


def lonely_tutorials(documents):
    """What is wrong with tutorials and articles that do not lead to each other; the documents by their places."""
    articles = {place for place, document in documents.items() if document["metadata"].get("role") == "article"}
    tutorials = {place for place, document in documents.items() if document["kind"] == "project"}
    links = {place: {reference.get("url", "").partition("#")[0] for reference in documents[place]["references"].values()}
             for place in articles | tutorials}
    if not tutorials:
        yield "there is no tutorial"
    for tutorial in sorted(tutorials):
        if not any(tutorial in links[article] for article in articles):
            yield f"{tutorial}: no article links to it"
        if not links[tutorial] & articles:
            yield f"{tutorial}: it links to no article"


# MARK: The browser


def is_opened(place):
    """Whether the browser opens the page at this place."""
    folder, *rest = place.split("/")
    return folder == "tutorials" or (folder == "documentation" and len(rest) <= 2)


def follow(chromium, root, screenshots):
    """Opens the front page and what it leads to; (how many pages, what is wrong)."""
    wrong, pages, known = [], [], [""]
    for place in known:
        page = chromium.open(root + place, until=SHOWN)
        pages.append((place, page))
        if not page.is_shown:
            continue
        found = json.loads(chromium.evaluate(FOUND))
        wrong += [f"/{place}: no picture is at {source}" for source in found["pictures"]]
        # The header of a page without content is shorter than this.
        if found["text"] < 100:
            wrong.append(f"/{place}: the page is empty")
        for link in found["links"]:
            target = link.partition("#")[0].removeprefix(root).rstrip("/")
            if link.startswith(root) and target not in known and is_opened(target):
                known.append(target)
        if screenshots:
            name = re.sub(r"\W+", "-", place) or "front"
            (screenshots / f"{name}.png").write_bytes(chromium.screenshot())
    # Some errors come after the page was left.
    return len(pages), wrong + [f"/{place}: {error}" for place, page in pages for error in page.errors]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("site", type=pathlib.Path)
    arguments = parser.parse_args()
    site = arguments.site
    base = re.search(r'var baseUrl = "([^"]*)"', (site / "documentation/index.html").read_text()).group(1)

    begin = time.monotonic()
    data = site / "data"
    documents = {f"/{path.relative_to(data).with_suffix('')}": json.loads(path.read_text()) for path in sorted(data.rglob("*.json"))}
    wrong = [f"{place}: nothing is at {link}" for place, document in documents.items() for link in dead_links(site, document)]
    wrong += lonely_tutorials(documents)
    print(f"the data of {len(documents)} pages was read in {time.monotonic() - begin:.0f} s", flush=True)

    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    server = serve(site, base)
    with browser.Browser() as chromium:
        opened, errors = follow(chromium, f"http://127.0.0.1:{server.server_port}{base}", arguments.screenshots)
    wrong += errors + server.failures
    print("\n".join(wrong))
    print(f"{opened} pages were opened in {time.monotonic() - begin:.0f} s; {len(wrong)} errors")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
