#!/usr/bin/env python3
"""Shows that results fail on a kernel before a fix and pass on one after it.

before_after.py run [--accept] SELFTEST REGRESSIONS SEEN [WORD...]   boots both kernels of each fix that has all words
before_after.py table [--check] REGRESSIONS SEEN DOCS-DIR            writes DOCS-DIR/kernel-regressions.md
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

KERNEL_RUN = Path(__file__).parent / "kernel-run.sh"
LIMIT = 600
OUT_OF_TIME, DIED = 124, 125


def boot(selftest, kernel, regression):
    """What the results came to on a kernel: {"passed": n, "failed": [CASE/TYPE], "why": the first reason}."""
    command = [KERNEL_RUN, "--timeout", str(LIMIT), kernel, selftest, "run", "--format", "json"]
    for glob in regression["results"]:
        command += ["--filter", glob]
    environment = dict(os.environ, **({"GUEST_NODES": "1"} if regression.get("nodes") == 2 else {}))
    guest = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    try:
        results = results_of(guest.stdout)
    except ValueError:
        if guest.returncode not in (OUT_OF_TIME, DIED):
            sys.exit(f"{kernel}: no report, exit code {guest.returncode}:\n{guest.stdout[-2000:]}{guest.stderr}")
        lines = [line for line in guest.stderr.splitlines() if "BUG" in line or "panic" in line]
        return {"passed": 0, "failed": ["the kernel"], "why": lines[0] if lines else "it came to a stop"}
    failed = [result for result in results if result["outcome"] == "fail"]
    return {
        "passed": sum(result["outcome"] == "pass" for result in results),
        "failed": [f"{result['case']}/{result['memory']}" if result["memory"] else result["case"] for result in failed],
        "why": reason(failed[0]) if failed else "",
    }


def results_of(output):
    """The results in a JSON report. Standard error, where notes of several lines go, comes through the same line of the
    guest, between the lines of the report; each result is a line of its own."""
    lines = [line.strip() for line in output.splitlines()]
    if not any(line.startswith('],"interrupted":null') for line in lines):
        raise ValueError("the report does not end")
    return [json.loads(line.removesuffix(",")) for line in lines if line.startswith('{"case":')]


def reason(result):
    """Why a result failed; of an oops the kernel's own line, without addresses that differ each time."""
    lines = result.get("detail") or []
    lines = lines if isinstance(lines, list) else lines.splitlines()
    kernel = [line.removeprefix("kernel: ") for line in lines if line.startswith("kernel: BUG")]
    why = kernel[0].partition(" for address")[0] if kernel else result["reason"]
    return why if len(why) <= 160 else why[:159] + "…"


def verdict(before, after):
    """Why a pair shows nothing, or nothing if it does."""
    if not before["failed"]:
        return "nothing fails before the fix"
    if after["failed"]:
        return f"fails after the fix too: {after['failed'][0]}: {after['why']}"
    return "" if after["passed"] else "nothing passes after the fix"


def load(path):
    """The fixes that results tell apart, and those that none does, with what was tried."""
    regressions = json.loads(path.read_text())
    return [r for r in regressions if "results" in r], [r for r in regressions if "results" not in r]


def run(arguments):
    status = 0
    for regression in load(arguments.regressions)[0]:
        if not all(word in json.dumps(regression, ensure_ascii=False) for word in arguments.words):
            continue
        before, after = (boot(arguments.selftest, regression[side], regression) for side in ("before", "after"))
        problem = verdict(before, after)
        print(f"{regression['fix']}\n    {regression['before']}: {len(before['failed'])} failed: {before['why']}\n"
              f"    {regression['after']}: {after['passed']} passed, {len(after['failed'])} failed\n"
              f"    {problem or 'told apart'}", flush=True)
        if problem:
            status = 1
        elif arguments.accept:
            # Read only now: other runs may have written it meanwhile.
            seen = json.loads(arguments.seen.read_text()) if arguments.seen.exists() else {}
            seen[regression["fix"]] = {"before": regression["before"], "after": regression["after"],
                                       "failed": len(before["failed"]), "passed": after["passed"], "why": before["why"]}
            arguments.seen.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n")
    return status


HEAD = """# Bugs that kernels had, before and after

<!-- Written by `Scripts/matrix/kernel-matrix.sh table` from Tests/KernelMatrix; do not edit. -->

For each fix: the results of the selftest that fail on a Debian kernel before it, and pass on one after it. Both were run.
`Scripts/matrix/kernel-matrix.sh before-after` repeats it; with a word, only for the fixes whose entry has the word.
Kernels that belong to a stable series have a fix from the version on that their changelog names, so a kernel "after" may
be older than one "before".

| fix | results | fails on | what it says there | passes on |
|---|---|---|---|---|
"""


FOOT = """
## Fixes that no result tells apart

| fix | what was tried |
|---|---|
"""


def table(arguments):
    seen = json.loads(arguments.seen.read_text())
    text = HEAD
    told_apart, others = load(arguments.regressions)
    for regression in told_apart:
        shown = seen.get(regression["fix"])
        if not shown or (shown["before"], shown["after"]) != (regression["before"], regression["after"]):
            sys.exit(f"not run yet: {regression['fix']}")
        cve = f" ({regression['cve']})" if "cve" in regression else ""
        results = ", ".join(f"`{glob}`" for glob in regression["results"])
        nodes = ", with two nodes of memory" if regression.get("nodes") == 2 else ""
        why = shown["why"].replace("|", "\\|")
        text += (f"| {regression['fix']}{cve} | {results}{nodes} | {shown['before']}: {shown['failed']} | {why} "
                 f"| {shown['after']}: {shown['passed']} |\n")
    text += FOOT + "".join(f"| {regression['fix']} | {regression['tried']} |\n" for regression in others)
    page = arguments.docs / "kernel-regressions.md"
    if arguments.check:
        if not page.exists() or page.read_text() != text:
            print(f"{page} differs from what was seen: run Scripts/matrix/kernel-matrix.sh table")
            return 1
        return 0
    page.write_text(text)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.add_argument("--accept", action="store_true")
    command.add_argument("selftest", type=Path)
    command.add_argument("regressions", type=Path)
    command.add_argument("seen", type=Path)
    command.add_argument("words", nargs="*")
    command.set_defaults(do=run)
    command = commands.add_parser("table")
    command.add_argument("--check", action="store_true")
    command.add_argument("regressions", type=Path)
    command.add_argument("seen", type=Path)
    command.add_argument("docs", type=Path)
    command.set_defaults(do=table)
    arguments = parser.parse_args()
    return arguments.do(arguments)


if __name__ == "__main__":
    sys.exit(main())
