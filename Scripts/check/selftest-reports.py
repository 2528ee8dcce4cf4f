#!/usr/bin/env python3
"""Reads the reports of uffd-selftest with parsers of other projects, and compares its cases with the numbers in the documents.

usage: selftest-reports.py PROGRAM

Needs the Python packages kcidb-io, tap.py and jsonschema, and the programs prove and xmllint.
"""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import kcidb_io
from tap.parser import Parser

REPO = Path(__file__).resolve().parents[2]
# Two passes, a failure with awkward characters, a skip and a crash.
FILTERS = [word for name in ("pass/*", "fail", "skip", "crash") for word in ("--filter", f"selfcheck-{name}")]
OUTCOMES = {"selfcheck-pass": ["pass", "pass"], "selfcheck-fail": ["fail"], "selfcheck-skip": ["skip"],
            "selfcheck-crash": ["fail"]}


def report(program, form, *arguments):
    """The report of a run that has a failure, on standard output and in a file."""
    with tempfile.NamedTemporaryFile("r", suffix=f".{form}") as file:
        command = [program, "run", "--format", form, *FILTERS, *arguments]
        printed = subprocess.run(command, capture_output=True, text=True)
        written = subprocess.run([*command, "--output", file.name], capture_output=True, text=True)
        assert (printed.returncode, written.returncode) == (1, 1), written.stderr
        return printed.stdout, file.read()


def check_json(text):
    document = json.loads(text)
    jsonschema.validate(document, json.loads((REPO / "docs/selftest-report.schema.json").read_text()))
    outcomes = {}
    for result in document["results"]:
        outcomes.setdefault(result["case"], []).append(result["outcome"])
    assert outcomes == OUTCOMES, outcomes


def check_kcidb(text):
    document = json.loads(text)
    kcidb_io.schema.LATEST.validate(document)
    status = [test["status"] for test in document["tests"]]
    assert sorted(status) == ["FAIL", "FAIL", "PASS", "PASS", "SKIP"], status
    assert len({test["id"] for test in document["tests"]}) == 5
    builds = {build["id"] for build in document["builds"]}
    assert {test["build_id"] for test in document["tests"]} <= builds


def check_tap(text):
    lines = list(Parser().parse_text(text))
    assert not [line for line in lines if line.category == "unknown"], text
    tests = [line for line in lines if line.category == "test"]
    assert [test.ok for test in tests] == [True, True, False, True, False], text
    assert [test.number for test in tests if test.skip] == [4]


def nested(text):
    """The nested parts of a report in KTAP, as reports of their own, and the report without them."""
    parts, outer, inner = [], [], []
    for line in text.splitlines():
        if line.startswith("  "):
            inner.append(line[2:])
        elif inner:
            parts.append("\n".join(inner))
            inner = []
        if not line.startswith("  "):
            outer.append(line)
    return parts, "\n".join(outer)


def check_ktap(text):
    """A report of KTAP, and each in it, is one of TAP but for its first line."""
    parts, outer = nested(text)
    assert len(parts) == 1
    for part, right in [(outer, [True, False, True, False]), (parts[0], [True, True])]:
        assert part.startswith("KTAP version 1\n1.."), part
        tap = part.replace("KTAP version 1", "TAP version 13", 1)
        lines = list(Parser().parse_text(tap))
        assert not [line for line in lines if line.category == "unknown"], tap
        assert [line.ok for line in lines if line.category == "test"] == right, tap
        with tempfile.NamedTemporaryFile("w", suffix=".tap") as file:
            file.write(tap + "\n")
            file.flush()
            proof = subprocess.run(["prove", "--exec", "cat", file.name], capture_output=True, text=True)
            assert "Parse errors" not in proof.stdout, proof.stdout


def check_junit(text):
    schema = REPO / "Tests/UserfaultSelftestTests/Resources/junit.xsd"
    subprocess.run(["xmllint", "--noout", "--schema", schema, "-"], input=text, text=True, check=True,
                   stderr=subprocess.DEVNULL)
    assert 'tests="5"' in text and 'failures="2"' in text, text[:300]


def check_numbers(program):
    """The pages that say how many cases there are are right, down to the last hundred."""
    cases = json.loads(subprocess.run([program, "list", "--format", "json"], capture_output=True, text=True, check=True).stdout)
    counts = {"cases": len(cases), "results": sum(max(1, len(case["memory"])) for case in cases)}
    hundreds = {what: f"{count // 100 * 100:,}" for what, count in counts.items()}
    for page in ("README.md", "Scripts/package/debian/uffd-selftest.control"):
        text = " ".join((REPO / page).read_text().split())
        told = re.findall(r"more than ([\d,]+) (cases)(?:, which make ([\d,]+) (results))?", text)
        assert told, f"{page} does not say how many cases there are"
        for number, what in (pair for row in told for pair in (row[:2], row[2:]) if pair[0]):
            assert number == hundreds[what], f"{page} says {number} {what}: there are {counts[what]}"


def main():
    program = sys.argv[1]
    check_numbers(program)
    for form, check in [("json", check_json), ("kcidb", check_kcidb), ("tap", check_tap), ("ktap", check_ktap),
                        ("junit", check_junit)]:
        for text in report(program, form):
            check(text)
        print(f"{form}: valid", flush=True)
    text, _ = report(program, "kcidb", "--kcidb-origin", "ourlab", "--kcidb-build", "ourlab:17")
    document = json.loads(text)
    kcidb_io.schema.LATEST.validate(document)
    assert not document["builds"] and {test["build_id"] for test in document["tests"]} == {"ourlab:17"}
    check_known(program)


def check_known(program):
    """KCIDB has no status for a failure that is known: the comment says so."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([{"what": "fails as it should", "cases": ["selfcheck-fail"]}], file)
        file.flush()
        text, _ = report(program, "kcidb", "--known-failures", file.name)
    comments = [test["comment"] for test in json.loads(text)["tests"] if test["path"].endswith("selfcheck-fail")]
    assert len(comments) == 1 and "known: fails as it should" in comments[0], comments


if __name__ == "__main__":
    main()
