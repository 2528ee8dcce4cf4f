#!/usr/bin/env python3
"""Compares what the guests reported with what is expected, and writes JUnit and the tables.

report.py check [--accept] RESULTS-DIR NAME EXPECTED-FILE
report.py failures RESULTS-DIR NAME PART EXPECTED-FILE   (options of uffd-selftest that run them once more)
report.py table [--check] EXPECTED-DIR DOCS-DIR

A name is that of a series (6.12), after a machine if it is another one than the host (arm64-16k/6.12).
"""

import argparse
import json
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path

WHO = ("root", "user", "unit")
# The beginning of the reason of a skip that depends on chance: another run on the same kernel may pass. Counts as a pass.
CHANCE = "this time "
# More failures than this are not due to a slow host.
MOST_RERUNS = 8


class Outcome:
    """What one result came to: "pass", "skip" or "fail", and why; "bug" is a failure that is known of this kernel."""

    def __init__(self, outcome, reason=""):
        self.outcome = outcome
        self.reason = reason if outcome in ("skip", "bug") else ""
        self.text = f"{outcome}: {reason}" if reason else outcome

    def __eq__(self, other):
        return other is not None and (self.outcome, self.reason) == (other.outcome, other.reason)


def identity(result):
    """A result is a case on a memory type; "-" stands for none."""
    return result["case"], result["memory"] or "-"


def printed(case, memory):
    return case if memory == "-" else f"{case} on {memory}"


def unit_results(path):
    """The results of the unit tests, in the form of the selftest's: a test takes the place of the memory type."""
    results = []
    for test in xml.parse(path).iter("testcase"):
        skipped, failure = test.find("skipped"), test.find("failure")
        outcome = "fail" if failure is not None else "skip" if skipped is not None else "pass"
        reason = skipped.text if skipped is not None else failure.get("message") if failure is not None else None
        suite = test.get("classname").partition(".")[2]
        results.append({"case": suite, "memory": test.get("name").replace(" ", ""), "outcome": outcome,
                        "reason": reason, "seconds": float(test.get("time") or 0), "detail": None})
    return results


def load_expected(path):
    """Expected outcomes as {who: {(case, memory): Outcome}}; the file keeps them grouped, to be short."""
    expected = {who: {} for who in WHO}
    if not path.exists():
        return expected, {}
    document = json.loads(path.read_text())
    for who in WHO:
        for group, cases in document.get(who, {}).items():
            outcome, _, reason = group.partition(": ")
            for case, memories in cases.items():
                for memory in memories.split(" "):
                    expected[who][case, memory] = Outcome(outcome, reason)
    return expected, document


def save_expected(path, release, results):
    document = {"kernel": release}
    for who in WHO:
        groups = document[who] = {}
        for (case, memory), outcome in results[who].items():
            cases = groups.setdefault(outcome.text if outcome.reason else outcome.outcome, {})
            cases[case] = f"{cases[case]} {memory}" if case in cases else memory
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def load_results(directory, who):
    """The raw results of one part of a run, or None; and why there are none, or not all."""
    try:
        if who == "unit":
            return unit_results(directory / "unit.xml"), ""
        document = json.loads((directory / f"{who}.json").read_text())
        results, signal = document["results"], document.get("interrupted")
        return results, f"stopped by {signal} after {len(results)} of {document['planned']} results" if signal else ""
    except (OSError, ValueError, KeyError, xml.ParseError):
        death = (directory / f"{who}.death").read_text().strip()
        code = directory / f"{who}.exit"
        return None, "no results: " + (
            death or (f"exit {code.read_text().strip()}" if code.exists() else "not reached"))


def known_bugs(expected_path, name):
    """{case: its bug} for the known bugs of the newest kernel of a series; the file is above all expected outcomes. A bug
    that shows "sometimes", as a race does, is expected in every run: whether it shows says nothing."""
    series = name.rpartition("/")[2]
    for folder in expected_path.parents:
        path = folder / "known-bugs.json"
        if path.exists():
            bugs = json.loads(path.read_text())
            return {case: bug for bug in bugs if series in bug.get("series", [series]) for case in bug["cases"]}
    return {}


def shows(bug, outcome):
    """Whether an outcome is what a known bug leads to."""
    return outcome == "fail" or (outcome == "pass" and bug.get("sometimes", False))


def failures(directory, name, who, expected_path):
    """What fails in one part of a run without being a known bug."""
    bugs = known_bugs(expected_path, name)
    results, _ = load_results(directory, who) if who != "unit" else ([], "")
    return [identity(result) for result in results or [] if result["outcome"] == "fail" and result["case"] not in bugs]


def passed_again(directory, who):
    """What has passed when it was run once more."""
    if not (directory / f"again/{who}.json").exists():
        return set()
    results, _ = load_results(directory / "again", who)
    return {identity(result) for result in results or [] if result["outcome"] == "pass"}


def write_junit(path, name, parts):
    suites = xml.Element("testsuites", name=f"Linux {name}")
    for who, (results, missing) in parts.items():
        suite = xml.SubElement(suites, "testsuite", name=f"{name}.{who}")
        for result in results or []:
            case = xml.SubElement(suite, "testcase", classname=suite.get("name"), name=printed(*identity(result)),
                                  time=str(result["seconds"]))
            if result["outcome"] == "skip":
                xml.SubElement(case, "skipped", message=result["reason"] or "")
            elif result["outcome"] == "fail":
                xml.SubElement(case, "failure", message=result["reason"] or "").text = result.get("detail") or ""
        if missing:
            case = xml.SubElement(suite, "testcase", classname=suite.get("name"), name="the whole run")
            xml.SubElement(case, "error", message=missing)
        for counted in ("testcase", "failure", "error", "skipped"):
            key = {"testcase": "tests", "failure": "failures", "error": "errors"}.get(counted, counted)
            suite.set(key, str(sum(1 for _ in suite.iter(counted))))
    xml.indent(suites)
    xml.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def check(directory, name, expected_path, accept):
    release = (directory / "release").read_text().strip()
    filtered = (directory / "filtered").exists()
    ran = (directory / "parts").read_text().split() if (directory / "parts").exists() else WHO
    parts = {who: load_results(directory, who) for who in ran}
    write_junit(directory / "junit.xml", name, parts)

    seen = {who: {} for who in WHO}
    problems, summary = [], []
    bugs = known_bugs(expected_path, name)
    expected, document = load_expected(expected_path)
    if not document and not accept:
        problems.append("no outcomes are recorded yet: review them, then use --accept")
    for who, (results, missing) in parts.items():
        if missing:
            problems.append(f"{who}: {missing}")
        if results is None:
            continue
        chance = 0
        again = passed_again(directory, who)
        for result in results:
            reason = (result["reason"] or "").replace(release, "this kernel")
            bug = bugs.get(result["case"])
            if bug and shows(bug, result["outcome"]):
                seen[who][identity(result)] = Outcome("bug", bug["what"])
                continue
            if result["outcome"] == "fail" and identity(result) in again:
                print(f"{name}: {who}: {printed(*identity(result))} failed and then passed alone: {reason}", flush=True)
                seen[who][identity(result)] = Outcome("pass")
                continue
            by_chance = result["outcome"] == "skip" and reason.startswith(CHANCE)
            chance += by_chance
            seen[who][identity(result)] = Outcome("pass") if by_chance else Outcome(result["outcome"], reason)
        counts = Counter(outcome.outcome for outcome in seen[who].values())
        if chance:
            counts["pass"] -= chance
            counts["not this time"] = chance
        summary.append(f"{who} " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
        for key in seen[who] if filtered else {**expected[who], **seen[who]}:
            was, now = expected[who].get(key), seen[who].get(key)
            if (now and now.outcome == "fail") or (document and was != now and not accept):
                change = f"{was.text if was else 'nothing'} -> {now.text if now else 'nothing'}"
                problems.append(f"{who}: {printed(*key)}: {change}")

    seconds = (directory / "seconds").read_text().strip()
    verdict = "as expected" if not problems else f"{len(problems)} not as expected"
    print(f"{name} ({release}), {seconds} s: {'; '.join(summary) or 'no results'}: {verdict}", flush=True)
    for problem in problems:
        print(f"    {problem}", flush=True)
    if accept and not problems:
        # What did not run keeps what is expected of it.
        kept = {who: expected[who] if filtered or who not in ran else {} for who in WHO}
        save_expected(expected_path, release, {who: {**kept[who], **seen[who]} for who in WHO})
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check")
    command.add_argument("--accept", action="store_true")
    command.add_argument("results", type=Path)
    command.add_argument("name")
    command.add_argument("expected", type=Path)
    command = commands.add_parser("failures")
    command.add_argument("results", type=Path)
    command.add_argument("name")
    command.add_argument("part", choices=WHO)
    command.add_argument("expected", type=Path)
    command = commands.add_parser("table")
    command.add_argument("--check", action="store_true")
    command.add_argument("expected", type=Path)
    command.add_argument("docs", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "check":
        return check(arguments.results, arguments.name, arguments.expected, arguments.accept)
    if arguments.command == "failures":
        found = failures(arguments.results, arguments.name, arguments.part, arguments.expected)
        names = [case if memory == "-" else f"{case}/{memory}" for case, memory in found]
        print("".join(f" --filter {name}" for name in names if len(names) <= MOST_RERUNS))
        return 0
    import table  # which imports this module

    return table.write(arguments.expected, arguments.docs, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
