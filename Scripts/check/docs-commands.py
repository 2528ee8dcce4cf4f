#!/usr/bin/env python3
"""Runs the commands of the documents in the current folder, which is a fresh clone.

usage: docs-commands.py PAGE...

After the comment "<!-- run -->", each line of a console block that begins with "$ " is a command. It has to end with 0.
After "<!-- run: same output -->", it also has to print what the page shows.
"""
import pathlib
import re
import subprocess
import sys
import time

BLOCK = re.compile(r"<!-- run(: same output)? -->\n```console\n(.*?)```", re.DOTALL)


def commands(page):
    """(line, command, the output that the page shows, whether it has to be the same)."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(2)) + 1
        for part in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.group(2), re.MULTILINE):
            line = first + block.group(2).count("\n", 0, part.start())
            yield line, part.group(1), part.group(2), bool(block.group(1))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    count = failed = 0
    for page in map(pathlib.Path, sys.argv[1:]):
        for line, command, shown, same in commands(page):
            count += 1
            print(f"{page}:{line}: {command}", flush=True)
            begin = time.monotonic()
            done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=1800, check=False)
            print(f"    exit code {done.returncode} after {time.monotonic() - begin:.0f} s", flush=True)
            if done.returncode != 0 or (same and done.stdout != shown):
                failed += 1
                print(done.stdout + done.stderr[-4000:])
                if same:
                    print(f"the page shows:\n{shown}")
    print(f"{count} commands, {failed} failed")
    return failed != 0 or count == 0


if __name__ == "__main__":
    sys.exit(main())
