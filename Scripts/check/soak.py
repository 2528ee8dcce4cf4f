#!/usr/bin/env python3
"""Compares the reports that selftest-soak.sh keeps: NAME.json, NAME.exit, NAME.seconds, NAME.log of each run.

soak.py run DIR/NAME    prints one line about a run
soak.py compare DIR     compares all runs; exits 1 if a result failed or has different outcomes, or a run has no verdict
"""

import json
import statistics
import sys
from collections import Counter
from pathlib import Path


class Run:
    """What a run left: `outcomes` maps each result to its outcome and reason; `problem` says why there is no verdict."""

    def __init__(self, path):
        self.path = path
        self.outcomes, self.problem, self.seconds = {}, None, 0.0
        try:
            code = int(path.with_suffix(".exit").read_text())
            self.seconds = float(path.with_suffix(".seconds").read_text())
            document = json.loads(path.with_suffix(".json").read_text())
            for result in document["results"]:
                name = f"{result['case']}/{result['memory']}" if result["memory"] else result["case"]
                self.outcomes[name] = result["outcome"], result["reason"] or ""
        except (OSError, ValueError, KeyError) as error:
            self.problem = f"no report: {error}"
            return
        has_failed = any(outcome == "fail" for outcome, _ in self.outcomes.values())
        if document["interrupted"]:
            self.problem = f"interrupted by {document['interrupted']}"
        elif len(self.outcomes) != document["planned"]:
            self.problem = f"{len(self.outcomes)} of {document['planned']} results"
        elif code != has_failed:
            self.problem = f"exit {code}, although {'a' if has_failed else 'no'} result failed"

    def __str__(self):
        counts = Counter(outcome for outcome, _ in self.outcomes.values())
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        problem = f"; NO VERDICT: {self.problem} (see {self.path}.log)" if self.problem else ""
        return f"{self.path.name}: {self.seconds:.1f} s: {told or 'nothing'}{problem}"


def numbers(runs):
    """The numbers of some runs, as short text: those of more than six are counted."""
    names = [run.path.name.removeprefix("run-") for run in runs]
    return f"runs {' '.join(names)}" if len(names) <= 6 else f"{len(names)} runs"


def problems(runs):
    """One text for each result that failed or that differs between runs, and for each run without a verdict."""
    found = [f"{run.path.name}: no verdict: {run.problem}" for run in runs if run.problem]
    complete = [run for run in runs if not run.problem]
    for name in sorted({name for run in complete for name in run.outcomes}):
        groups = {}
        for run in complete:
            outcome, reason = run.outcomes.get(name, ("absent", ""))
            groups.setdefault(outcome, {}).setdefault(reason, []).append(run)
        if len(groups) == 1 and "fail" not in groups:
            continue
        found.append(f"{name}:" + "".join(
            f"\n    {outcome}{': ' if reason else ''}{reason}: {numbers(which)}, {which[0].path}.json"
            for outcome, reasons in groups.items() for reason, which in reasons.items()))
    return found


def compare(directory):
    runs = [Run(path.with_suffix("")) for path in sorted(directory.glob("run-*.exit"))]
    if not runs:
        print(f"no run in {directory}")
        return 1
    found = problems(runs)
    for problem in found:
        print(problem)
    seconds = [run.seconds for run in runs]
    print(f"{len(runs)} runs of {len(runs[0].outcomes)} results, seconds per run: {min(seconds):.1f} to {max(seconds):.1f}, "
          f"median {statistics.median(seconds):.1f}: " + (f"{len(found)} PROBLEMS" if found else "the same outcomes"))
    return 1 if found else 0


def main():
    match sys.argv[1:]:
        case ["run", path]:
            print(Run(Path(path)), flush=True)
            return 0
        case ["compare", directory]:
            return compare(Path(directory))
    print(__doc__, file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main())
