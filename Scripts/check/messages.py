#!/usr/bin/env python3
"""Checks that the programs still print the messages that a page explains: messages.py PAGE

A message is the first cell of a row of the page's section "Troubleshooting"; … stands for a part that differs.
"""
import pathlib
import re
import sys

SOURCES = ("Sources", "Tools/Sources")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    section = pathlib.Path(sys.argv[1]).read_text().partition("## Troubleshooting\n")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    code = "\n".join(file.read_text() for folder in SOURCES for file in pathlib.Path(folder).rglob("*.swift"))
    # In the code, a part that differs is an interpolation.
    unknown = [message for message in messages
               if not re.search(r"[^\"\n]*".join(re.escape(part) for part in message.split("…")), code)]
    for message in unknown:
        print(f"{sys.argv[1]}: nothing prints '{message}'", file=sys.stderr)
    if not messages:
        print(f"{sys.argv[1]} explains no message", file=sys.stderr)
    return bool(unknown) or not messages


if __name__ == "__main__":
    sys.exit(main())
