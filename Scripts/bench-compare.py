#!/usr/bin/env python3
"""Prints the ratios of two series of uffd-bench reports: FOLDER/{before,after}.ROUND.json.

usage: bench-compare.py FOLDER ROUNDS
"""
import json
import pathlib
import statistics
import sys


def medians(folder, side, rounds):
    """The median of each scenario's variant, round by round."""
    found = {}
    for number in range(1, rounds + 1):
        report = json.loads((folder / f"{side}.{number}.json").read_text())
        for scenario in report["scenarios"]:
            for variant in scenario["variants"]:
                key = (scenario["name"], variant["name"])
                found.setdefault(key, []).append(variant["nanoseconds"]["median"])
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    before, after = (medians(folder, side, rounds) for side in ("before", "after"))
    print(f"{'scenario':32} {'variant':24} {'ratio':>7}  {'min .. max':>15}")
    for key in before:
        if key not in after or len(after[key]) != len(before[key]):
            continue
        ratios = [new / old for new, old in zip(after[key], before[key])]
        name, variant = key
        print(f"{name:32} {variant:24} {statistics.median(ratios):7.3f}  {min(ratios):6.3f} .. {max(ratios):6.3f}")


if __name__ == "__main__":
    main()
