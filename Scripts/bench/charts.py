"""Draws the pictures of docs/performance.md from its tables. Needs matplotlib."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

WIDTH = 8.2
C, TYPED, PAGER, OTHER = "#6e7781", "#d1442f", "#0969da", "#1a7f37"


def plain(axis, ticks, labels=None):
    """Ticks with plain numbers, on an axis that is logarithmic."""
    axis.set_ticks(ticks, labels or [f"{tick:,g}" for tick in ticks])
    axis.minorticks_off()


def line(axes, points, label, color, *, dashed=False, shift=0):
    """A line with its name at its end, so that no legend is needed."""
    where, values = zip(*points)
    axes.plot(where, values, color=color, marker="o", markersize=3.5, linewidth=1.6,
              linestyle=(0, (4, 2)) if dashed else "solid")
    axes.annotate(label, (where[-1], values[-1]), xytext=(8, shift), textcoords="offset points", color=color,
                  va="center", fontsize=9)


def level(axes, value, label, at, *, color=OTHER, shift=4):
    axes.axhline(value, color=color, linewidth=1.2, linestyle=(0, (1, 2)))
    axes.annotate(label, (at, value), xytext=(0, shift), textcoords="offset points", color=color, fontsize=9)


def figure(height, title, x, y):
    drawn, axes = plt.subplots(figsize=(WIDTH, height))
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def save(drawn, path):
    drawn.tight_layout()
    drawn.savefig(path, metadata={"Date": None})
    plt.close(drawn)


def batches(found, folder):
    sizes = (1, 16, 256, 512)
    drawn, axes = figure(4.2, "A page costs less in a batch, and the typed layer costs what C costs",
                         "pages in one call", "nanoseconds per page")
    axes.set(xscale="log", yscale="log")
    for call, shift in (("copy", 0), ("continue", 0), ("zeropage", 4), ("move", -4)):
        rows = [(size, found[f"ioctl/{call}/{size}"]) for size in sizes]
        line(axes, [(size, row["c"]) for size, row in rows], "", C, dashed=True)
        line(axes, [(size, row["swift"]) for size, row in rows], call.upper(), TYPED, shift=shift)
    level(axes, found["ioctl/zeropage/1"]["first touch"], "first touch of ordinary memory, for comparison",
          18, shift=-12)
    axes.annotate("dashed: C", (16, found["ioctl/continue/16"]["c"]), xytext=(6, 8), textcoords="offset points",
                  color=C, fontsize=9)
    plain(axes.xaxis, sizes)
    plain(axes.yaxis, (50, 100, 200, 500, 1000, 2000))
    axes.set_xlim(0.9, 1100)
    save(drawn, folder / "batch-size.svg")


def latencies(tails, folder):
    """Median, 99th and 99.9th percentile of the cases that matter."""
    cases = (("copy/poll/same-core", "handler sleeps,\nsame processor"),
             ("copy/adaptive/same-core", "handler looks first,\nsame processor"),
             ("copy/poll/two-cores", "handler sleeps,\nanother processor"),
             ("copy/adaptive/two-cores", "handler looks first,\nanother processor"))
    drawn, axes = figure(3.8, "How long a thread waits for a page (COPY): median, 99 %, 99.9 %", "microseconds", "")
    axes.set_xscale("log")
    for row, (scenario, _) in enumerate(cases):
        for shift, color, values in zip((-0.22, 0, 0.22), (C, TYPED, PAGER), tails[f"fault/{scenario}"]):
            axes.plot(values, [row + shift] * 3, color=color, linewidth=1.6)
            for value, marker in zip(values, "o|D"):
                axes.plot(value, row + shift, color=color, marker=marker, markersize=5, markeredgewidth=1.6)
    for shift, color, name in zip((-0.22, 0, 0.22), (C, TYPED, PAGER), ("C", "typed layer", "pager")):
        end = tails[f"fault/{cases[0][0]}"][(C, TYPED, PAGER).index(color)][-1]
        axes.annotate(name, (end, shift), xytext=(8, 0), textcoords="offset points", color=color, va="center", fontsize=9)
    axes.set_yticks(range(len(cases)), [name for _, name in cases], fontsize=9)
    axes.invert_yaxis()
    plain(axes.xaxis, (5, 10, 20, 50, 100, 200, 500))
    save(drawn, folder / "latency.svg")


def scaling(found, folder):
    threads = (1, 2, 4, 8)
    drawn, axes = figure(3.8, "More faulting threads keep a handler busy", "faulting threads", "thousand faults per second")
    axes.set_xscale("log")
    for handlers, shift in ((1, -4), (2, 4)):
        rows = [(count, found[f"scale/{count}x{handlers}"]) for count in threads]
        many = "s" if handlers > 1 else ""
        line(axes, [(count, 1e6 / row["c"]) for count, row in rows], "", C, dashed=True)
        line(axes, [(count, 1e6 / row["pager"]) for count, row in rows], f"pager, {handlers} handler{many}", PAGER,
             shift=shift)
    axes.annotate("dashed: C", (2, 1e6 / found["scale/2x1"]["c"]), xytext=(6, -12), textcoords="offset points", color=C,
                  fontsize=9)
    plain(axes.xaxis, threads)
    axes.set_xlim(0.95, 13)
    axes.set_ylim(bottom=0)
    save(drawn, folder / "scaling.svg")


def windows(found, folder):
    sizes = (1, 16, 64, 256, 512)

    def speed(nanoseconds):
        return 1e9 / nanoseconds / 2**20

    drawn, axes = figure(4.2, "Read-ahead decides how fast memory is read in order", "pages filled for one fault",
                         "GiB per second")
    axes.set_xscale("log")
    # The faster one is named above its end, the other below: the line of the pager's own window ends near them.
    last = found[f"scan/{sizes[-1]}"]
    for name, other, label, color in (("c", "pager", "C", C), ("pager", "c", "pager, fixed window", PAGER)):
        line(axes, [(size, speed(found[f"scan/{size}"][name])) for size in sizes], label, color, dashed=name == "c",
             shift=11 if last[name] < last[other] else -11)
    adaptive = found["scan/adaptive"]
    level(axes, speed(adaptive["pager"]), "pager, its own window", 1, color=PAGER)
    level(axes, speed(adaptive["mmap"]), "mmap of a cached file", 1)
    level(axes, speed(adaptive["read"]), "pread of a cached file", 1)
    plain(axes.xaxis, sizes)
    axes.set_xlim(0.9, 1800)
    axes.set_ylim(0, 1.1 * speed(adaptive["mmap"]))
    save(drawn, folder / "scan.svg")


def restores(rows, folder):
    """Bars for both daemons, from (what is restored, seconds of CRIU's own, seconds of uffd-pager)."""
    drawn, axes = figure(3.4, "How long a lazy restore takes, to its last page", "seconds", "")
    for row, (_, own, ours) in enumerate(rows):
        for shift, seconds, name, color in ((-0.2, own, "CRIU's own daemon (C)", C), (0.2, ours, "uffd-pager", PAGER)):
            axes.barh(row + shift, seconds, 0.36, color=color)
            label = f"{seconds:.2f} s" + ("" if row else f", {name}")
            axes.annotate(label, (seconds, row + shift), xytext=(5, 0), textcoords="offset points", color=color, va="center",
                          fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.5 * max(max(own, ours) for _, own, ours in rows))
    save(drawn, folder / "restore.svg")


def draw(found, tails, restored, folder):
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "uffd-bench"
    batches(found, folder)
    latencies(tails, folder)
    scaling(found, folder)
    windows(found, folder)
    restores(restored, folder)
