#!/usr/bin/env python3
"""Writes the cases into docs/selftest-coverage.md.

usage: uffd-selftest list --format json | Scripts/check/coverage-table.py
"""
import json
import pathlib
import sys

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "selftest-coverage.md"


def main():
    covering = {}
    for case in json.load(sys.stdin):
        for entry in case["covers"]:
            names = covering.setdefault(entry, [])
            if case["case"] not in names:
                names.append(case["case"])
    lines = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| 3.4.") or line.startswith("| part5."):
            cases = ", ".join(f"`{name}`" for name in covering.get(cells[0], []))
            line = f"| {cells[0]} | {cells[1]} | {cases} |"
        lines.append(line)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
