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
    "scan": "Reading in order: nanoseconds per KiB",
    "random": "Touching at random: nanoseconds per fault",
    "dirty": "Protecting, writing and finding: nanoseconds per page",
    "startup": "Open, negotiate, register, first fault: nanoseconds",
}
TWINS = {"c": "C", "swift": "typed layer", "pager": "pager"}
VERDICTS = {"holds": "", "broken": ", **broken**", "cannot tell": ", cannot tell"}


def comparison(found):
    """What a variant is of its twin, the interval, and what became of a promise."""
    text = f"{found['median']:.2f} ({found['lower']:.2f} to {found['upper']:.2f})"
    if found["quantity"] == "rate":
        text += f" x the faults per second of {found['to']}"
    else:
        text = "x" + text + ("" if found["to"] == "c" else f" of {found['to']}")
    if found.get("bound") is None:
        return text
    relation = "≤" if found["quantity"] == "time" else "≥"
    return text + f" {relation} {found['bound']:.2f}{VERDICTS[found['verdict']]}"


def cell(variant):
    if variant is None:
        return ""
    median = variant["nanoseconds"]["median"]
    parts = [f"{median:,.1f}" if median < 10 else f"{median:,.0f}"]
    return ", ".join(parts + [comparison(c) for c in variant["comparisons"]])


def tail(variants):
    """The latencies of single faults, in microseconds."""
    found = (variants[name].get("latency") for name in TWINS if name in variants)
    return "; ".join(" / ".join(f"{one[p] / 1000:.1f}" for p in ("p50", "p99", "p999")) for one in found if one)


def table(family, scenarios):
    yield f"### {TITLES.get(family, family)}"
    yield ""
    names = {v["name"] for s in scenarios for v in s["variants"]}
    columns = [name for name in TWINS if name in names]
    others = bool(names - set(TWINS))
    tails = any(v.get("latency") for s in scenarios for v in s["variants"])
    heads = [TWINS[name] for name in columns]
    heads += (["p50 / p99 / p99.9 in us: " + "; ".join(heads)] if tails else []) + (["for comparison"] if others else [])
    yield "| scenario | " + " | ".join(heads) + " |"
    yield "|:--|" + "--:|" * len(columns) + (":--|" if tails else "") + (":--|" if others else "")
    for scenario in scenarios:
        variants = {v["name"]: v for v in scenario["variants"]}
        cells = [cell(variants.get(name)) for name in columns]
        if tails:
            cells.append(tail(variants))
        if others:
            rest = (v for name, v in variants.items() if name not in TWINS)
            cells.append("; ".join(f"{v['name'].strip('()')}: {cell(v)}" for v in rest))
        yield f"| `{scenario['name'].partition('/')[2] or family}` | " + " | ".join(cells) + " |"
    yield ""


def tally(title, counts):
    return (f"{title}: {counts['holds']} hold, {counts['broken']} broken, "
            f"{counts['cannotTell']} where the rounds lie too far apart to tell.")


def heading(report):
    machine = report["machine"]
    reporting = machine.get("pageReportingOrder")
    rounds = [len(v["rounds"]) for s in report["scenarios"] for v in s["variants"]]
    yield (f"Linux {machine['kernel']}, {machine['architecture']}, {machine['processors']} processors "
           f"({machine['processorName']}{', a virtual machine' if machine['isVirtual'] else ''}); {machine['pinning']}; "
           f"clock {machine['clockSource']}; transparent huge pages: {machine['transparentHugePages']}, and off for what "
           f"is measured{f'; free memory is reported to the host from order {reporting} on' if reporting else ''}. "
           f"Load {machine.get('loadBefore', '?')} before and {machine.get('loadAfter', '?')} behind the "
           f"{'quick' if report['quick'] else 'full'} run; {min(rounds)} to {max(rounds)} rounds, each there and back.")
    yield ""
    yield tally("Gated promises", report["gated"])
    yield tally("Promises across processors, reported and not gated", report["reported"])
    yield ""
    for warning in report["warnings"]:
        yield f"> {warning}"
        yield ""


def tables(report):
    yield from heading(report)
    families = {}
    for scenario in report["scenarios"]:
        if scenario["variants"]:
            families.setdefault(scenario["name"].partition("/")[0], []).append(scenario)
    for family, scenarios in families.items():
        yield from table(family, scenarios)
    for key, title in (("unavailable", "Not measured"), ("failure", "Failed")):
        missing = [f"`{s['name']}` ({s[key]})" for s in report["scenarios"] if s.get(key)]
        if missing:
            yield f"{title}: " + "; ".join(missing) + "."
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
