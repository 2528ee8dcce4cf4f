#!/usr/bin/env python3
"""Writes the tables of a uffd-bench report between the markers of a Markdown page.

usage: bench-page.py REPORT.json PAGE.md
"""
import json
import pathlib
import sys

BEGIN, END = "<!-- measured: Scripts/bench-page.sh writes what follows -->", "<!-- end of what was measured -->"
TITLES = {
    "ioctl": "One ioctl: nanoseconds per page",
    "fault": "One fault: nanoseconds until the thread goes on",
    "scale": "Many threads and regions: nanoseconds per fault",
    "scan": "Reading in order: GiB per second",
    "random": "Touching at random: nanoseconds per fault",
    "dirty": "Finding written pages: nanoseconds per page",
    "startup": "Open, negotiate, register, first fault: nanoseconds",
}
TWINS = ("c", "swift", "pager")


def time(variant, unit):
    median = variant["nanoseconds"]["median"]
    return f"{1e9 / median / 2**20:.2f}" if unit == "kibibyte" else f"{median:,.0f}"


def cell(variant, unit):
    """A time, and how it compares with C: the median of the rounds' ratios and its interval."""
    if variant is None:
        return ""
    ratio = variant.get("ratio")
    if ratio is None:
        return time(variant, unit)
    return f"{time(variant, unit)}, **{ratio['median']:.2f}** ({ratio['lower']:.2f} to {ratio['upper']:.2f})"


def table(family, scenarios):
    yield f"### {TITLES.get(family, family)}"
    yield ""
    columns = [name for name in TWINS if any(v["name"] == name for s in scenarios for v in s["variants"])]
    others = any(v["name"] not in TWINS for s in scenarios for v in s["variants"])
    heads = [{"c": "C", "swift": "typed layer, x C", "pager": "pager, x C"}[name] for name in columns]
    yield "| scenario | " + " | ".join(heads + (["for comparison"] if others else [])) + " |"
    yield "|:--|" + "--:|" * len(heads) + (":--|" if others else "")
    for scenario in scenarios:
        variants = {v["name"]: v for v in scenario["variants"]}
        cells = [cell(variants.pop(name, None), scenario["unit"]) for name in columns]
        if others:
            rest = (f"{name.strip('()')} {cell(v, scenario['unit'])}" for name, v in variants.items())
            cells.append("; ".join(rest))
        yield f"| `{scenario['name'].partition('/')[2] or family}` | " + " | ".join(cells) + " |"
    yield ""


def tables(report):
    machine = report["machine"]
    fewest = min(len(v["rounds"]) for s in report["scenarios"] for v in s["variants"])
    yield (f"Linux {machine['kernel']}, {machine['architecture']}, {machine['processors']} processors "
           f"({machine['processorName']}), at least {fewest} rounds; load before the run {machine['load']:.2f}, "
           f"equal work varied by {machine['noise']:.0f} %.")
    yield ""
    for warning in report["warnings"]:
        yield f"> {warning}"
        yield ""
    families = {}
    for scenario in report["scenarios"]:
        if not scenario.get("unavailable"):
            families.setdefault(scenario["name"].partition("/")[0], []).append(scenario)
    for family, scenarios in families.items():
        yield from table(family, scenarios)
    missing = [s for s in report["scenarios"] if s.get("unavailable")]
    if missing:
        yield "Not measured: " + "; ".join(f"`{s['name']}` ({s['unavailable']})" for s in missing) + "."
        yield ""


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    report = json.loads(pathlib.Path(sys.argv[1]).read_text())
    page = pathlib.Path(sys.argv[2])
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        sys.exit(f"{page}: the markers are not there")
    page.write_text("\n".join([before + BEGIN, "", *tables(report)]) + END + after)


if __name__ == "__main__":
    main()
