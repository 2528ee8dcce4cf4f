#!/usr/bin/env python3
"""Prints a guide as a package installs it: guide.py PAGE FOLDER [LINK=TARGET]...

It has no part between <!-- sources --> and <!-- /sources -->, no notes for checks, and no link to what is not installed: LINK
becomes a link to TARGET, and what is not in FOLDER, where the guide is to be, becomes plain text.
"""
import pathlib
import re
import sys

# What a command names in the sources, and where it is installed.
PLACES = {
    "swift run --quiet --package-path Tools uffd-pager": "uffd-pager",
    "Examples/handoff-client.c": "/usr/share/doc/uffd-pager/examples/handoff-client.c",
    "Scripts/package/setup-host.sh": "/usr/share/uffd-selftest/setup-host.sh",
    "Scripts/package/seccomp.json": "/usr/share/uffd-selftest/seccomp.json",
}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    page, folder = map(pathlib.Path, sys.argv[1:3])
    targets = dict(pair.split("=", 1) for pair in sys.argv[3:])

    def link(found):
        text, target = found.groups()
        target = targets.get(target, target)
        path = target.partition("#")[0]
        there = re.match(r"\w+:", target) or not path or path == page.name or (folder / path).exists()
        return f"[{text}]({target})" if there else text

    text = re.sub(r"<!-- sources -->.*?<!-- /sources -->\n*", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"^ *<!-- (?:not )?run\b.*?-->\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\[([^]]+)\]\(([^)\s]+)\)", link, text)
    for place, installed in PLACES.items():
        text = text.replace(place, installed)
    for line in text.splitlines():
        if re.search(r"\b(Scripts|Sources|Tests|Tools|Examples)/|--package-path|\.build\b", line):
            sys.exit(f"{page}: this is only in the sources: {line}")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
