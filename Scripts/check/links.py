#!/usr/bin/env python3
"""Checks the links of Markdown pages to files of this repository and to headings: links.py PAGE..."""
import pathlib
import re
import sys

LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", lambda code: "\n" * code.group().count("\n"), text, flags=re.DOTALL)


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main():
    broken = 0
    for page in map(pathlib.Path, sys.argv[1:]):
        for number, line in enumerate(without_code(page.read_text()).splitlines(), 1):
            for link in (first or second for first, second in LINK.findall(line)):
                path, _, anchor = link.partition("#")
                target = page.parent / path if path else page
                if re.match(r"\w+:", link):
                    continue
                if not target.exists() or (anchor and anchor not in anchors(target)):
                    print(f"{page}:{number}: nothing is at {link}", file=sys.stderr)
                    broken += 1
    return broken != 0


if __name__ == "__main__":
    sys.exit(main())
