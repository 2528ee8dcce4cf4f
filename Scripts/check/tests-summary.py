#!/usr/bin/env python3
"""Counts the results of a test run; a skip without a lawful reason counts as a failure.

usage: tests-summary.py xunit FILE [--allow TEXT]... | selftest FILE | unended LOG

Prints "PASSED FAILED SKIPPED", or the tests of a log that began and did not end. Lawful reasons: the kernel does not
have a feature, or has one whose absence is tested. --allow adds reasons that begin with TEXT.
"""
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

LAWFUL = ("the kernel has ", "the kernel lacks ")


def main() -> int:
    kind, path, *rest = sys.argv[1:]
    if kind == "selftest":
        with open(path, encoding="utf-8") as file:
            totals = json.load(file)["totals"]
        print(totals.get("pass", 0) + totals.get("xpass", 0), totals.get("fail", 0) + totals.get("error", 0), totals.get("skip", 0))
        return 0
    if kind == "unended":
        with open(path, encoding="utf-8", errors="replace") as file:
            log = file.read()
        ended = set(re.findall(r"^[✔✘➜] Test (.+?) (?:with \d+ test cases? )?(?:passed|failed|skipped)\b", log, re.M))
        for test in dict.fromkeys(re.findall(r"^◇ Test (?!case |run )(.+) started\.$", log, re.M)):
            if test not in ended:
                print(f"did not end: {test}")
        return 0
    lawful = LAWFUL + tuple(text for option, text in zip(rest, rest[1:]) if option == "--allow")
    passed = failed = skipped = unlawful = 0
    try:
        results = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        print(f"no results of a whole run: {path}: {error}", file=sys.stderr)
        return 1
    for case in results.iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif skip is not None:
            skipped += 1
            reason = (skip.get("message") or skip.text or "").strip().strip('"')
            if not reason.startswith(lawful):
                print(f"skipped: {case.get('classname')}.{case.get('name')}: {reason}", file=sys.stderr)
                unlawful += 1
        else:
            passed += 1
    print(passed, failed + unlawful, skipped - unlawful)
    return 0


if __name__ == "__main__":
    sys.exit(main())
