#!/usr/bin/env python3
"""Runs the commands of the documents in the current folder, which is a fresh clone.

usage: docs-commands.py PAGE...
       docs-commands.py --marks PAGE...     only looks whether every block is marked

Each console block is marked. After the comment "<!-- run -->", each of its lines that begins with "$ " is a command. It has to
end with 0. After "<!-- run: same output -->", it also has to print what the page shows. "<!-- not run: REASON -->" says why
commands cannot run here, or which check runs them. Of those, too, all options of uffd-pager and uffd-selftest have to exist.
"""
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

BLOCK = re.compile(r"(?:^ *<!-- (run|run: same output|not run: [^\n]+) -->\n+)?^( *)```console\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LIMIT = 1800
PROGRAMS = {
    "uffd-pager": ["swift", "run", "--quiet", "--package-path", "Tools", "uffd-pager"],
    "uffd-selftest": ["Scripts/selftest.sh"],
}


def blocks(page):
    """(line, mark or None, code) of each console block."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        code = re.sub(f"^{block.group(2)}", "", block.group(3), flags=re.MULTILINE)
        yield text.count("\n", 0, block.start(3)) + 1, block.group(1), code


def commands(first, code):
    """(line, command with the lines that continue it, the output that the page shows)."""
    for part in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", code, re.MULTILINE):
        yield first + code.count("\n", 0, part.start()), part.group(1), part.group(2)


def unmarked(pages):
    found = [f"{page}:{line}" for page in pages for line, mark, _ in blocks(page) if mark is None]
    for place in found:
        print(f"{place}: this block says neither that its commands run nor why they do not")
    return found


def run(command):
    """(exit code, standard output, standard error); nothing that it has started is left."""
    with subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"\nkilled after {LIMIT} s"
        return process.returncode, out, err


def ran(place, command, shown):
    """Whether a command did as the page says; `shown` is None if its output may be any."""
    print(f"{place}: {command}", flush=True)
    begin = time.monotonic()
    code, out, err = run(command)
    print(f"    exit code {code} after {time.monotonic() - begin:.0f} s", flush=True)
    if code == 0 and shown in (None, out):
        return True
    print(out + err[-4000:])
    if shown is not None:
        print(f"the page shows:\n{shown}")
    return False


def options(command):
    """Every option of a command, of what --experimental-dump-help prints."""
    for argument in command.get("arguments", []):
        for name in argument.get("names", []):
            yield ("--" if name["kind"] == "long" else "-") + name["name"]


def unknown_options(text, helps):
    """The options in a command line that its program does not have."""
    if not any(name in text for name in helps):
        return
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    for name, help_of in helps.items():
        for start in (number for number, word in enumerate(words) if word == name or word.endswith(f"/bin/{name}")):
            command, known = help_of, {"-h", "--help", "--version"}
            for word in words[start + 1:]:
                if word in ("&", "|", "&&", ";"):
                    break
                below = {one["commandName"]: one for one in command.get("subcommands", [])}
                known.update(options(command), options(below.get(command.get("defaultSubcommand"), {})))
                if word in below:
                    command = below[word]
                elif word.startswith("-") and word.split("=")[0] not in known:
                    yield f"{command['commandName']} {word}"


def main():
    marks_only = sys.argv[1:2] == ["--marks"]
    pages = [pathlib.Path(name) for name in sys.argv[1 + marks_only:]]
    if not pages:
        sys.exit(__doc__)
    failed = len(unmarked(pages))
    if marks_only:
        return failed != 0
    count, looked_at = 0, []
    for page in pages:
        for first, mark, code in blocks(page):
            for line, command, shown in commands(first, code):
                if mark in ("run", "run: same output"):
                    count += 1
                    failed += not ran(f"{page}:{line}", command, shown if mark != "run" else None)
                looked_at.append((f"{page}:{line}", command))
    helps = {}
    for name, command in PROGRAMS.items():
        done = subprocess.run([*command, "--experimental-dump-help"], check=True, capture_output=True, text=True)
        helps[name] = json.loads(done.stdout)["command"]
    for place, command in looked_at:
        for option in unknown_options(command, helps):
            failed += 1
            print(f"{place}: there is no option {option}")
    print(f"{count} commands ran and {len(looked_at) - count} were looked at, {failed} failed")
    return failed != 0 or count == 0


if __name__ == "__main__":
    sys.exit(main())
