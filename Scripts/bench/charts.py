"""Draws a report of uffd-bench: latency distributions, batch sizes, scaling, windows. Needs matplotlib."""

import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLORS = {"c": "#555555", "swift": "#f05138", "pager": "#1f77b4"}


def scenarios(report, prefix):
    return [s for s in report["scenarios"] if s["name"].startswith(prefix) and s["variants"]]


def numbered(report, prefix):
    """The scenarios whose names end with a number, by it."""
    found = ((s["name"].removeprefix(prefix), s) for s in scenarios(report, prefix))
    return sorted((int(number), s) for number, s in found if number.isdecimal())


def variant(scenario, name):
    return next((v for v in scenario["variants"] if v["name"] == name), None)


def line(axis, points, name, convert=lambda time: time, **style):
    """A variant's medians over the points, with the rounds' extremes as bars."""
    measured = [(at, variant(s, name)["nanoseconds"]) for at, s in points if variant(s, name)]
    if not measured:
        return
    middle = [convert(m["median"]) for _, m in measured]
    ends = [sorted((convert(m["minimum"]), convert(m["maximum"]))) for _, m in measured]
    bars = [[max(0, m - low) for m, (low, _) in zip(middle, ends)], [max(0, high - m) for m, (_, high) in zip(middle, ends)]]
    axis.errorbar([at for at, _ in measured], middle, yerr=bars, marker=".", capsize=2, elinewidth=0.6, **style)


def finish(figure, axis, path, title, x, y, *, powers=True, logarithmic=False):
    if powers:
        axis.set_xscale("log", base=2)
    if logarithmic:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def latencies(report, folder):
    """How long single faults take, for each way of waiting; the axis is stretched towards the slow ones."""
    calls = [call for call in ("copy", "continue", "zeropage") if scenarios(report, f"fault/{call}/")]
    if not calls:
        return
    # If threads are not pinned, rounds differ too much for one line.
    ways = list(dict.fromkeys(
        way for call in calls for s in scenarios(report, f"fault/{call}/")
        if not (way := s["name"].split("/", 2)[2]).endswith("/free")))
    figure, axes = plt.subplots(
        len(ways), len(calls), figsize=(3 * len(calls), 2 * len(ways)), sharex=True, sharey=True, squeeze=False)
    for row, way in zip(axes, ways):
        row[0].set_ylabel("us per fault")
        for axis, call in zip(row, calls):
            for scenario in (s for s in scenarios(report, f"fault/{call}/") if s["name"].endswith("/" + way)):
                for name in COLORS:
                    if not (variant(scenario, name) or {}).get("latency"):
                        continue
                    quantiles = variant(scenario, name)["latency"]["quantiles"]
                    axis.plot(
                        [-math.log10(1 - q["share"]) for q in quantiles], [q["nanoseconds"] / 1000 for q in quantiles],
                        marker=".", label=name, color=COLORS[name])
            axis.set_yscale("log")
            axis.set_title(f"{call}, {way}", fontsize=9)
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xticks([-math.log10(1 - share) for share in (0, 0.9, 0.99, 0.999, 0.9999)])
        axis.set_xticklabels(["0", "90", "99", "99.9", "99.99"], fontsize=7)
        axis.set_xlabel("% of faults")
    axes[0][0].legend(fontsize=7)
    figure.suptitle("How long single faults take")
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(folder / "latency.svg")


def batches(report, folder):
    """How the cost of a page falls with the pages of one call."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for color, call in enumerate(("copy", "zeropage", "continue", "move")):
        for name, style in (("c", "--"), ("swift", "-")):
            line(axis, numbered(report, f"ioctl/{call}/"), name, label=f"{call}, {name}", linestyle=style, color=f"C{color}")
    finish(figure, axis, folder / "batch-size.svg", "Batch size", "pages in one ioctl", "ns per page", logarithmic=True)


def scaling(report, folder):
    """How many faults are served for how many threads."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for handlers, style in ((1, "-"), (2, "--")):
        shown = [s for s in scenarios(report, "scale/") if s["name"].endswith(f"x{handlers}")]
        points = [(int(s["name"].split("/")[1].split("x")[0]), s) for s in shown]
        for name, color in COLORS.items():
            line(axis, points, name, lambda time: 1e9 / time, linestyle=style, color=color,
                 label=f"{name}, {handlers} handler" + ("s" if handlers > 1 else ""))
    finish(figure, axis, folder / "scaling.svg", "Scaling", "faulting threads", "faults per second")


def windows(report, folder):
    """How fast memory is read for how many pages filled at one fault, in order."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for name, color in COLORS.items():
        points = numbered(report, "scan/")
        line(axis, points, name, lambda time: 1e9 / time / 2**20, color=color, label=name)
    finish(figure, axis, folder / "scan.svg", "Reading in order", "pages filled for one fault", "GiB per second")


def regions(report, folder):
    """What regions cost the pager."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for name in ("c", "pager"):
        line(axis, numbered(report, "scale/regions/"), name, label=name, color=COLORS[name])
    finish(figure, axis, folder / "regions.svg", "Regions of one pager", "regions", "ns per fault")


def draw(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "uffd-bench"
    for one in (latencies, batches, scaling, windows, regions):
        one(report, folder)
