#!/usr/bin/env python3
"""Compares two series of uffd-bench reports: FOLDER/{before,after}.ROUND.json.

Each variant is first divided by the C twin of its own run, since C is the same on both sides: what the machine did to one
run falls out. Shown are the median over the rounds and the lowest and the highest of them.

usage: bench-compare.py FOLDER ROUNDS
"""
import json
import pathlib
import statistics
import sys


def against_c(folder, side, rounds):
    """Each scenario's variant against C, round by round."""
    found = {}
    for number in range(1, rounds + 1):
        report = json.loads((folder / f"{side}.{number}.json").read_text())
        for scenario in report["scenarios"]:
            medians = {v["name"]: v["nanoseconds"]["median"] for v in scenario["variants"]}
            for name in ("swift", "pager"):
                if name in medians and "c" in medians:
                    found.setdefault((scenario["name"], name), []).append(medians[name] / medians["c"])
    return found


def lines(before, after):
    yield f"{'scenario':32} {'variant':8} {'after / before':>15}  {'lowest .. highest':>17}"
    for key in before:
        # A scenario that one side does not have, or could not always measure, is not compared.
        if key not in after or len(after[key]) != len(before[key]):
            continue
        ratios = [new / old for new, old in zip(after[key], before[key])]
        yield f"{key[0]:32} {key[1]:8} {statistics.median(ratios):15.3f}  {min(ratios):7.3f} .. {max(ratios):6.3f}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    print("\n".join(lines(*(against_c(folder, side, rounds) for side in ("before", "after")))))


if __name__ == "__main__":
    main()
