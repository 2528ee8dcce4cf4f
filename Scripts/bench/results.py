#!/usr/bin/env python3
"""Reads the reports of uffd-bench.

usage: results.py page PAGE.md [REPORT.json]   writes the tables of a report into a page, then what follows from tables
       results.py restores PAGE.md             the same with the table of restores, from the standard input
       results.py check PAGE.md                fails if a page says something else than its tables
       results.py compare FOLDER ROUNDS        compares FOLDER/{before,after}.ROUND.json
"""
import json
import pathlib
import statistics
import sys

import findings

BEGIN, END = "<!-- measured: Scripts/bench/run.sh --page writes what follows -->", "<!-- end of what was measured -->"
RESTORES = ("<!-- restores: Scripts/bench/restore.sh writes what follows -->", "<!-- end of the restores -->")
TITLES = {
    "ioctl": "One ioctl: nanoseconds per page",
    "fault": "One fault: nanoseconds until the thread continues",
    "scale": "Many threads and regions: nanoseconds per fault",
    "scan": "Reading in order: nanoseconds per KiB",
    "random": "Random access: nanoseconds per fault",
    "dirty": "Protect, write, find written pages: nanoseconds per page",
    "startup": "Open, negotiate, register, first fault: nanoseconds",
    "pager": "The pager compared with itself: nanoseconds",
}
TWINS = {"c": "C", "swift": "typed layer", "pager": "pager"}
VERDICTS = {"holds": "", "broken": ", **broken**", "cannot tell": ", cannot tell"}


def comparison(found):
    """A variant's ratio to its twin, the interval, and the verdict on a promise."""
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
    if variant.get("residentBytes"):
        parts.append(f"{variant['residentBytes'] / 2**20:.1f} MiB")
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
            f"{counts['cannotTell']} undecided, because the rounds differ too much.")


def heading(report):
    machine = report["machine"]
    reporting = machine.get("pageReportingOrder")
    rounds = [len(v["rounds"]) for s in report["scenarios"] for v in s["variants"]]
    yield (f"Linux {machine['kernel']}, {machine['architecture']}, {machine['processors']} processors "
           f"({machine['processorName']}{', a virtual machine' if machine['isVirtual'] else ''}); {machine['pinning']}; "
           f"clock {machine['clockSource']}; transparent huge pages: {machine['transparentHugePages']}, and off for the "
           f"memory that is measured{f'; free memory is reported to the host from order {reporting} on' if reporting else ''}. "
           f"Load {machine.get('loadBefore', '?')} before and {machine.get('loadAfter', '?')} after the "
           f"{'quick' if report['quick'] else 'full'} run; {min(rounds)} to {max(rounds)} rounds, each back and forth.")
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


def against_c(folder, side, rounds):
    """Each scenario's variant against C, round by round.

    C is the same on both sides, so that what the machine did to one run falls out.
    """
    found = {}
    for number in range(1, rounds + 1):
        report = json.loads((folder / f"{side}.{number}.json").read_text())
        for scenario in report["scenarios"]:
            medians = {v["name"]: v["nanoseconds"]["median"] for v in scenario["variants"]}
            for name in ("swift", "pager"):
                if name in medians and "c" in medians:
                    found.setdefault((scenario["name"], name), []).append(medians[name] / medians["c"])
    return found


def compared(before, after):
    """The median over the rounds, and the lowest and the highest of them."""
    yield f"{'scenario':32} {'variant':8} {'after / before':>15}  {'lowest .. highest':>17}"
    for key in before:
        # A scenario that one side does not have, or could not always measure, is not compared.
        if key not in after or len(after[key]) != len(before[key]):
            continue
        ratios = [new / old for new, old in zip(after[key], before[key])]
        yield f"{key[0]:32} {key[1]:8} {statistics.median(ratios):15.3f}  {min(ratios):7.3f} .. {max(ratios):6.3f}"


def with_tables(text, report):
    before, _, rest = text.partition(BEGIN)
    return "\n".join([before + BEGIN, "", *tables(report)]) + END + rest.partition(END)[2]


def with_restores(text, table):
    if not findings.restored(table):
        sys.exit("no restore is in the table")
    before, _, rest = text.partition(RESTORES[0])
    return f"{before}{RESTORES[0]}\n\n{table.strip()}\n\n{RESTORES[1]}{rest.partition(RESTORES[1])[2]}"


def write_page(page, text):
    """Writes the findings and the pictures of its tables, and the page."""
    import charts  # only the page needs the drawing library

    try:
        text = findings.with_findings(text, TITLES, TWINS)
        charts.draw(findings.medians(text, TITLES, TWINS), findings.tails(text), findings.restored(text), page.with_suffix(""))
    except KeyError as missing:
        sys.exit(f"{page}: the page needs a report of all scenarios, and this one does not have {missing}")
    page.write_text(text)


def check_page(page):
    text = page.read_text()
    if findings.with_findings(text, TITLES, TWINS) != text:
        sys.exit(f"{page}: the findings or the broken promises are not those of the tables: run Scripts/bench/run.sh --page")


def main():
    match sys.argv[1:]:
        case ["page", page]:
            write_page(pathlib.Path(page), pathlib.Path(page).read_text())
        case ["page", page, report]:
            write_page(pathlib.Path(page), with_tables(pathlib.Path(page).read_text(), json.loads(pathlib.Path(report).read_text())))
        case ["restores", page]:
            write_page(pathlib.Path(page), with_restores(pathlib.Path(page).read_text(), sys.stdin.read()))
        case ["check", page]:
            check_page(pathlib.Path(page))
        case ["compare", folder, rounds]:
            sides = (against_c(pathlib.Path(folder), side, int(rounds)) for side in ("before", "after"))
            print("\n".join(compared(*sides)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
