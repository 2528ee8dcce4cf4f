"""The matrix for people: a Markdown page and a picture, made from the expected outcomes."""

from pathlib import Path

from report import WHO, load_expected

MEMORIES = ("anon", "shmem", "shmem-private", "tmpfs", "tmpfs-private", "hugetlb", "hugetlb-private")
COLOURS = {"pass": (0.30, 0.66, 0.40), "skip": (0.87, 0.87, 0.87), "bug": (0.80, 0.20, 0.20)}
ABSENT = (1.0, 1.0, 1.0)
TITLES = {"root": "As root", "user": "As an ordinary user", "unit": "Unit tests of the library"}


def series_key(name):
    return tuple(int(part) for part in name.split("."))


def load_all(directory):
    """{series: ({who: {(case, memory): Outcome}}, document)}, oldest series first."""
    paths = sorted(directory.glob("*.json"), key=lambda path: series_key(path.stem))
    return {path.stem: load_expected(path) for path in paths}


def cases_of(matrix, who):
    """Every case of any series, in the order in which the newest series runs them."""
    cases = {}
    for expected, _ in reversed(matrix.values()):
        cases.update(dict.fromkeys(case for case, _ in expected[who] if case not in cases))
    return list(cases)


def cell(expected, case):
    outcomes = [o.outcome for (name, _), o in expected.items() if name == case]
    if not outcomes:
        return ""
    if "bug" in outcomes:
        return "✗"
    passed = outcomes.count("pass")
    if passed == len(outcomes):
        return "✓"
    return f"✓ {passed}/{len(outcomes)}" if passed else "–"


def table_rows(matrix, who):
    yield "| case | " + " | ".join(matrix) + " |"
    yield "|---|" + ":-:|" * len(matrix)
    for case in cases_of(matrix, who):
        yield f"| `{case}` | " + " | ".join(cell(expected[who], case) for expected, _ in matrix.values()) + " |"
    totals = []
    for expected, _ in matrix.values():
        outcomes = [o.outcome for o in expected[who].values()]
        bugs = f", {outcomes.count('bug')} ✗" if "bug" in outcomes else ""
        totals.append(f"{outcomes.count('pass')} ✓, {outcomes.count('skip')} –{bugs}")
    yield "| **results** | " + " | ".join(totals) + " |"


def reason_rows(matrix, who):
    reasons = {}
    for series, (expected, _) in matrix.items():
        for (case, _), outcome in expected[who].items():
            if outcome.outcome != "pass":
                reasons.setdefault(outcome.text, {}).setdefault(case, {})[series] = None
    yield "| not run (–), or failed (✗), because | cases | on |"
    yield "|---|---|---|"
    for reason, cases in sorted(reasons.items()):
        series = sorted({s for per_case in cases.values() for s in per_case}, key=series_key)
        every = "every series" if len(series) == len(matrix) else ", ".join(series)
        yield f"| {reason.partition(': ')[2]} | {', '.join(f'`{case}`' for case in cases)} | {every} |"


def markdown(matrix):
    yield "# The kernel matrix"
    yield ""
    yield "<!-- Written by `Scripts/kernel-matrix.sh table` from Tests/KernelMatrix/expected; do not edit. -->"
    yield ""
    yield "The whole selftest on each kernel series, in a virtual machine with Debian's cloud kernel:"
    yield "`Scripts/kernel-matrix.sh run` repeats it and fails on any outcome that is not in this table."
    yield "✓: passed on every memory type; ✓ n/m: passed on n of m, the others not run; –: not run, with the reason below;"
    yield "✗: failed, because of a bug that this kernel is known to have (`Tests/KernelMatrix/known-bugs.json`)."
    yield "The library's unit tests run there too, a row for each suite."
    yield "[Kernel behaviour by version](kernel-behaviour.md) says in which answers the kernels differ."
    yield ""
    yield "- One kernel: `Scripts/kernel-matrix.sh run 6.12`; JSON, JUnit and logs are left in `.build-matrix/6.12`."
    yield "- After a change that should change outcomes: `Scripts/kernel-matrix.sh run --accept`, a look at the difference"
    yield "  in git, then `Scripts/kernel-matrix.sh table`. Of failures only those are accepted that a known bug explains."
    yield "- The same where the processors of a guest take turns on one thread of the host: `Scripts/kernel-matrix.sh run"
    yield "  --one-thread 6.12`. It must make no difference."
    yield "- One program on one kernel: `Scripts/kernel-run.sh 6.12 .build/debug/uffd-selftest run --filter 'minor*'`."
    yield "- The kernels come from the Debian mirror that the host's apt uses, into `~/.cache/swift-userfaultfd/kernels`"
    yield "  (or `UFFD_KERNEL_CACHE`); `Scripts/kernel-matrix.sh fetch` looks for newer ones."
    yield ""
    yield "| series | kernel |"
    yield "|---|---|"
    for series, (_, document) in matrix.items():
        yield f"| {series} | `{document['kernel']}` |"
    yield ""
    yield "![One square per case, kernel and memory type](kernel-matrix.png)"
    for who in WHO:
        yield ""
        yield f"## {TITLES[who]}"
        yield ""
        yield from table_rows(matrix, who)
        yield ""
        yield from reason_rows(matrix, who)


def draw(matrix, path):
    """One row per case, one column group per series, one square per memory type."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    cases = cases_of(matrix, "root")
    width = len(MEMORIES)
    figure, axes = pyplot.subplots(figsize=(4 + 0.9 * len(matrix), 1.6 + 0.17 * len(cases)))
    pixels = []
    for case in cases:
        row = []
        for expected, _ in matrix.values():
            outcomes = [expected["root"].get((case, memory)) for memory in MEMORIES]
            alone = next((o for (name, memory), o in expected["root"].items()
                          if name == case and memory not in MEMORIES), None)
            # A case that is about no memory type fills its whole cell.
            row += [COLOURS[o.outcome] if o else ABSENT for o in ([alone] * width if alone else outcomes)]
        pixels.append(row)
    axes.imshow(pixels, aspect="auto", interpolation="nearest", extent=(0, width * len(matrix), len(cases), 0))
    axes.set_xticks([width * (i + 0.5) for i in range(len(matrix))], matrix)
    axes.set_yticks([i + 0.5 for i in range(len(cases))], cases, fontsize=7, family="monospace")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.hlines(range(len(cases)), 0, width * len(matrix), colors="white", linewidth=1)
    axes.vlines(range(width * len(matrix)), 0, len(cases), colors="white", linewidth=0.3)
    axes.vlines([width * i for i in range(1, len(matrix))], 0, len(cases), colors="black", linewidth=0.8)
    legend = [Patch(color=colour, label={"pass": "passed", "skip": "not run", "bug": "a known bug of the kernel"}[name])
              for name, colour in COLOURS.items()]
    figure.legend(handles=legend, loc="lower left", ncols=3, frameon=False, fontsize=8)
    figure.text(0.99, 0.008, "squares, left to right: " + ", ".join(MEMORIES), ha="right", fontsize=7)
    axes.set_title("The selftest as root, by kernel series", fontsize=10, pad=8)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def write(expected: Path, docs: Path, check: bool):
    matrix = load_all(expected)
    page = docs / "kernel-matrix.md"
    text = "\n".join(markdown(matrix)) + "\n"
    if check:
        if not page.exists() or page.read_text() != text:
            print(f"{page} is not what the expected outcomes say: run Scripts/kernel-matrix.sh table")
            return 1
        return 0
    docs.mkdir(exist_ok=True)
    page.write_text(text)
    draw(matrix, docs / "kernel-matrix.png")
    return 0
