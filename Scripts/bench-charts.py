#!/usr/bin/env python3
"""Draws uffd-bench's JSON report: latency distributions, batch sizes, scaling. Needs matplotlib.

usage: bench-charts.py REPORT.json FOLDER
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLORS = {"c": "#555555", "swift": "#f05138", "pager": "#1f77b4"}


def scenarios(report, prefix):
    return [s for s in report["scenarios"] if s["name"].startswith(prefix) and s["variants"]]


def variant(scenario, name):
    return next((v for v in scenario["variants"] if v["name"] == name), None)


def latencies(report, folder):
    """How long single faults take, for each way of waiting."""
    shown = scenarios(report, "fault/copy/")
    if not shown:
        return
    figure, axes = plt.subplots(1, len(shown), figsize=(3 * len(shown), 3.4), sharey=True, squeeze=False)
    for axis, scenario in zip(axes[0], shown):
        for name in ("c", "swift", "pager"):
            measured = variant(scenario, name)
            if measured is None or not measured.get("latency"):
                continue
            quantiles = measured["latency"]["quantiles"]
            axis.plot(
                [100 * q["share"] for q in quantiles],
                [q["nanoseconds"] / 1000 for q in quantiles],
                marker=".", label=name, color=COLORS[name],
            )
        axis.set_yscale("log")
        axis.set_title(scenario["name"].removeprefix("fault/copy/"), fontsize=9)
        axis.set_xlabel("% of faults")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("us per fault")
    axes[0][0].legend()
    figure.suptitle("A missing page filled by COPY: latency distribution")
    figure.tight_layout()
    figure.savefig(folder / "latency.svg")


def batches(report, folder):
    """How the cost of a page falls with the pages of one call."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for call in ("copy", "zeropage", "continue", "move"):
        points = [(int(s["name"].rsplit("/", 1)[1]), s) for s in scenarios(report, f"ioctl/{call}/")]
        if not points:
            continue
        for name, style in (("c", "--"), ("swift", "-")):
            axis.plot(
                [pages for pages, _ in points],
                [variant(s, name)["nanoseconds"]["median"] for _, s in points],
                style, marker=".", label=f"{call}, {name}",
            )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("pages in one ioctl")
    axis.set_ylabel("ns per page")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    axis.set_title("Batch size: Swift lies on C")
    figure.tight_layout()
    figure.savefig(folder / "batch-size.svg")


def scaling(report, folder):
    """How many faults are served for how many threads."""
    shown = scenarios(report, "scale/")
    if not shown:
        return
    figure, axis = plt.subplots(figsize=(6, 4))
    for handlers, style in ((1, "-"), (2, "--")):
        points = [s for s in shown if s["name"].endswith(f"x{handlers}")]
        for name in ("c", "swift", "pager"):
            axis.plot(
                [int(s["name"].split("/")[1].split("x")[0]) for s in points],
                [1e9 / variant(s, name)["nanoseconds"]["median"] for s in points],
                style, marker=".", label=f"{name}, {handlers} handler" + ("s" if handlers > 1 else ""),
                color=COLORS[name],
            )
    axis.set_xlabel("faulting threads")
    axis.set_ylabel("faults per second")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    axis.set_title("Scaling")
    figure.tight_layout()
    figure.savefig(folder / "scaling.svg")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    report = json.loads(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "uffd-bench"
    latencies(report, folder)
    batches(report, folder)
    scaling(report, folder)


if __name__ == "__main__":
    main()
