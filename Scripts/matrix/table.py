"""The matrix for people: Markdown pages made from the expected outcomes."""

import re
from pathlib import Path

from report import WHO, load_expected

TITLES = {"root": "As root", "user": "As an ordinary user", "unit": "Unit tests of the library"}
# Groups of cases, by the first word of the case's name.
GROUPS = {
    "opening and negotiation": ("UFFDIO_API", "api", "open", "order", "close", "context"),
    "registration": ("register", "unregister"),
    "faults, reading and waking": ("fault", "address", "thread", "read", "poll", "wake", "signal", "sigbus"),
    "faults of the kernel": ("kernel", "populate", "mlock", "collapse"),
    "COPY, ZEROPAGE, POISON": ("copy", "fill", "zeropage", "poison"),
    "minor faults and CONTINUE": ("minor", "continue"),
    "MOVE": ("move",),
    "write protection and PAGEMAP_SCAN": ("wp", "scan"),
    "read-write protection": ("rwp", "set"),
    "fork, remap, remove, unmap, seal": ("event", "events", "mmap", "seal"),
    "broken pages": ("broken",),
    "other processes": ("process",),
    "stress": ("stress",),
}
OTHER = "other"
GROUP_OF = {word: group for group, words in GROUPS.items() for word in words}


def series_key(name):
    return tuple(int(number) for number in re.findall(r"\d+", name))


def load_all(directory):
    """{series: ({who: {(case, memory): Outcome}}, document)}, oldest series first."""
    paths = sorted(directory.glob("*.json"), key=lambda path: series_key(path.stem))
    return {path.stem: load_expected(path) for path in paths}


def load_arm64(directory):
    """The same of the guests for arm64; the size of their pages is a part of the name."""
    found = {f"{series}, {machine.name.removeprefix('arm64-')}": outcomes
             for machine in directory.glob("arm64-*") for series, outcomes in load_all(machine).items()}
    return dict(sorted(found.items(), key=lambda item: series_key(item[0])))


def cases_of(matrix, who):
    """Every case of any series, in the order in which the newest series runs them."""
    cases = {}
    for expected, _ in reversed(matrix.values()):
        cases.update(dict.fromkeys(case for case, _ in expected[who] if case not in cases))
    return list(cases)


def groups_of(cases):
    """{group: its cases}, in the order of GROUPS."""
    found = {group: [] for group in [*GROUPS, OTHER]}
    for case in cases:
        found[GROUP_OF.get(case.replace(" ", "-").split("-")[0], OTHER)].append(case)
    return {group: members for group, members in found.items() if members}


def cell(expected, cases):
    """What the results of some cases came to on one kernel."""
    outcomes = [outcome.outcome for (case, _), outcome in expected.items() if case in cases]
    if not outcomes:
        return ""
    passed, bugs = outcomes.count("pass"), outcomes.count("bug")
    if passed == len(outcomes):
        return "✓"
    if bugs:
        return f"✗ {bugs}/{len(outcomes)}"
    return f"{passed}/{len(outcomes)}" if passed else "–"


def header(first, matrix):
    yield f"| {first} | " + " | ".join(matrix) + " |"
    yield "|---|" + ":-:|" * len(matrix)


def row(name, matrix, who, cases):
    members = set(cases)
    return f"| {name} | " + " | ".join(cell(expected[who], members) for expected, _ in matrix.values()) + " |"


def summary(matrix, who):
    yield from header("group", matrix)
    cases = cases_of(matrix, who)
    for group, members in groups_of(cases).items():
        yield row(f"{group} ({len(members)})", matrix, who, members)
    yield row(f"**all** ({len(cases)})", matrix, who, cases)


def details(matrix, who):
    """A table for each group; cases with the same outcomes share a row."""
    for group, members in groups_of(cases_of(matrix, who)).items():
        rows = {}
        for case in members:
            rows.setdefault(row("", matrix, who, [case]), []).append(f"`{case}`")
        yield f"<details><summary>{group}</summary>"
        yield ""
        yield from header("cases", matrix)
        for cells, names in rows.items():
            yield f"| {', '.join(names)} {cells.removeprefix('|  ')}"
        yield ""
        yield "</details>"
        yield ""


def reason_rows(matrix, who):
    reasons = {}
    for series, (expected, _) in matrix.items():
        for (case, _), outcome in expected[who].items():
            if outcome.outcome != "pass":
                reasons.setdefault(outcome.text, {}).setdefault(case, {})[series] = None
    yield "| reason | cases | on |"
    yield "|---|---|---|"
    for reason, cases in sorted(reasons.items()):
        series = sorted({s for per_case in cases.values() for s in per_case}, key=series_key)
        every = "every series" if len(series) == len(matrix) else ", ".join(series)
        yield f"| {reason.partition(': ')[2]} | {', '.join(f'`{case}`' for case in cases)} | {every} |"


CELLS = """Each cell sums up the results of a group: ✓: all passed; n/m: n of m passed, the others were not run; –: none was run;
✗ n/m: n of m fail because of a known bug of this kernel, a race perhaps not in every run
(`Tests/KernelMatrix/known-bugs.json`). The details say why.
"""

HEAD = """# The kernel matrix

<!-- Written by `Scripts/matrix/kernel-matrix.sh table` from Tests/KernelMatrix/expected; do not edit. -->

The whole selftest on eleven kernel series, in virtual machines with Debian's cloud kernels on x86_64, as root and as an
ordinary user; and the library's unit tests. `Scripts/matrix/kernel-matrix.sh run` repeats it, and fails on any outcome that
is not on this page. [Kernel behaviour by version](kernel-behaviour.md) says in which answers the kernels differ.

""" + CELLS

FOOT = """## Using it

- One kernel: `Scripts/matrix/kernel-matrix.sh run 6.12`. JSON, JUnit and logs are in `.build-matrix/6.12` afterwards.
- After a change that should change outcomes: `Scripts/matrix/kernel-matrix.sh run --accept`, a look at the difference in
  git, then `Scripts/matrix/kernel-matrix.sh table`. Failures are accepted only if a known bug explains them.
- With guests whose processors take turns on one thread of the host: `Scripts/matrix/kernel-matrix.sh run --one-thread
  6.12`. It must make no difference.
- On arm64, with pages of 4 or 16 KiB, in machines that qemu emulates: `Scripts/matrix/kernel-matrix.sh run --machine
  arm64-16k 6.12`. `Scripts/package/cross-arm64.sh` compiles the selftest for it, with Debian sid's Swift compiler; the first
  time it downloads 1.3 GB, and keeps 2.7 GB. JSON, JUnit and logs are in `.build-matrix/arm64-16k/6.12`.
- One program on one kernel: `Scripts/matrix/kernel-run.sh 6.12 .build/debug/uffd-selftest run --filter 'minor*'`.
- The kernels come from the Debian mirror of the host's apt, into `~/.cache/swift-userfaultfd/kernels` (or
  `UFFD_KERNEL_CACHE`). `Scripts/matrix/kernel-matrix.sh fetch` looks for newer ones.
"""


HEAD_ARM64 = """# The kernel matrix on arm64

<!-- Written by `Scripts/matrix/kernel-matrix.sh table` from Tests/KernelMatrix/expected; do not edit. -->

The whole selftest on Debian's kernels for arm64 with pages of 4 KiB and of 16 KiB, in virtual machines that qemu emulates.
No arm64 hardware is needed, and none was used. [The matrix](kernel-matrix.md) has more kernels, on x86_64.

""" + CELLS

FOOT_ARM64 = """[How to run it](kernel-matrix.md#using-it). The unit tests of the library do not run on arm64.
"""


def markdown(matrix, head=HEAD, foot=FOOT):
    yield head
    yield "| series | kernel |"
    yield "|---|---|"
    for series, (_, document) in matrix.items():
        yield f"| {series} | `{document['kernel']}` |"
    for who in WHO:
        if not cases_of(matrix, who):
            continue
        yield ""
        yield f"## {TITLES[who]}"
        yield ""
        if who != "unit":
            yield from summary(matrix, who)
            yield ""
            yield from details(matrix, who)
        else:
            yield from header("suite", matrix)
            for suite in cases_of(matrix, who):
                yield row(f"`{suite}`", matrix, who, [suite])
            yield ""
        yield "<details><summary>why results were not run, or failed</summary>"
        yield ""
        yield from reason_rows(matrix, who)
        yield ""
        yield "</details>"
    yield ""
    yield foot.rstrip("\n")


def write(expected: Path, docs: Path, check: bool):
    pages = {
        docs / "kernel-matrix.md": markdown(load_all(expected)),
    }
    if arm64 := load_arm64(expected):
        pages[docs / "kernel-matrix-arm64.md"] = markdown(arm64, HEAD_ARM64, FOOT_ARM64)
    docs.mkdir(exist_ok=True)
    status = 0
    for page, lines in pages.items():
        text = "\n".join(lines) + "\n"
        if not check:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            print(f"{page} differs from the expected outcomes: run Scripts/matrix/kernel-matrix.sh table")
            status = 1
    return status
