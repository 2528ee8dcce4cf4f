"""Reads the tables of docs/performance.md, and says in words what they show, so that both always agree."""
import re

BEGIN, END = "<!-- findings: Scripts/bench/run.sh --page writes what follows -->", "<!-- end of the findings -->"
BROKEN = ("<!-- broken promises: Scripts/bench/run.sh --page writes what follows -->", "<!-- end of the broken promises -->")
PROMISE = re.compile(r"x?([\d.]+ \([\d.]+ to [\d.]+\))( of [^≤≥(]*| x the [^≤≥(]*)? ([≤≥]) ([\d.]+), \*\*broken\*\*")
NUMBER = re.compile(r"[\d,]*\d(?:\.\d+)?")
BATCHED = ("copy", "continue", "zeropage", "poison", "writeprotect", "move")
CALLS = ("copy", "continue", "zeropage")


def medians(page, titles, twins):
    """{scenario: {variant: nanoseconds}}, from the tables of a page. Variants for comparison have their own names."""
    families = {title: family for family, title in titles.items()}
    names = {head: name for name, head in twins.items()}
    found, family, heads = {}, None, []
    for line in page.splitlines():
        if line.startswith("### "):
            family, heads = families.get(line[4:]), []
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if family is None or not line.startswith("|"):
            continue
        if not heads:
            heads = cells
        elif cells[0].startswith("`"):
            row = found.setdefault(f"{family}/{cells[0].strip('`')}", {})
            for head, cell in zip(heads, cells):
                if head in names and cell:
                    row[names[head]] = number(cell)
                elif head == "for comparison" and cell:
                    row.update((name, number(value)) for name, value in (one.split(": ", 1) for one in cell.split("; ")))
    return found


def tails(page):
    """{scenario of a fault: [(p50, p99, p99.9) in microseconds of C, of the typed layer, of the pager]}"""
    rows = re.finditer(r"^\| `([^`]*)` \|.*\| ((?:[\d.]+ / [\d.]+ / [\d.]+(?:; )?)+) \|", page, re.MULTILINE)
    return {f"fault/{row.group(1)}": [tuple(map(float, one.split(" / "))) for one in row.group(2).split("; ")]
            for row in rows}


def restored(page):
    """[(what, seconds of CRIU's own daemon, seconds of uffd-pager)], from the table of restores."""
    rows = re.findall(r"^\| `\w+`: ([^|]*) \| ([\d.]+) \([^|]*\) \| ([\d.]+) \([^|]*\) \|", page, re.MULTILINE)
    return [(what, float(own), float(ours)) for what, own, ours in rows]


def number(text):
    return float(NUMBER.match(text).group().replace(",", ""))


def span(ratios):
    low, high = min(ratios), max(ratios)
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"


def findings(found):
    def c(scenario):
        return found[scenario]["c"]

    def slower(way, other):
        return span([c(f"fault/{call}/{way}") / c(f"fault/{call}/{other}") for call in CALLS])

    gains = ", ".join(f"`{call.upper()}` {c(f'ioctl/{call}/1') / c(f'ioctl/{call}/512'):.1f}" for call in BATCHED)
    last = max(1 - c(f"ioctl/{call}/512") / c(f"ioctl/{call}/256") for call in BATCHED)
    mmap = found["scan/adaptive"]["mmap"]
    signal = c("fault/copy/in-thread")
    dirty = c("dirty/wp-async-scan")
    yield (f"**Batches:** with 512 pages in one call, a page costs this many times less than with one: {gains}. From 256 "
           f"pages to 512, none becomes cheaper by more than {last * 100:.0f} %.")
    yield (f"**Two processors:** a handler that sleeps in `poll` on another processor takes "
           f"{slower('poll/two-cores', 'poll/same-core')} times as long as on the same one, a handler that spins there "
           f"{slower('spin/two-cores', 'poll/same-core')} times.")
    yield (f"**Signals:** if the faulting thread resolves its own fault (`SIGBUS` feature, `COPY`), the fault takes "
           f"{signal / c('fault/copy/poll/same-core'):.2f} of the time that a handler on the same processor needs.")
    yield (f"**Threads:** with eight faulting threads and one handler, a fault costs {c('scale/8x1') / c('scale/1x1'):.2f} "
           f"of what it costs with one thread on another processor.")
    regions = found["scale/regions/256"]
    yield (f"**Regions:** with 256 regions, a fault costs the pager {regions['pager'] / regions['c']:.2f} of what it costs "
           f"C, and {regions['pager'] / found['scale/regions/1']['pager']:.2f} of what it costs with one region.")
    yield (f"**Reading in order:** 512 pages for each fault are {c('scan/1') / c('scan/512'):.1f} times as fast as one. "
           f"`mmap` of a cached file is {c('scan/512') / mmap:.1f} times as fast as C with 512 pages, and "
           f"{found['scan/adaptive']['pager'] / mmap:.1f} times as fast as the pager's own window.")
    signalled = found["dirty/mprotect-sigsegv"]["mprotect, SIGSEGV"]
    yield (f"**Written pages:** `WP_ASYNC` with `PAGEMAP_SCAN` costs {dirty / signalled:.2f} of `mprotect` with a signal, "
           f"and {dirty / c('dirty/wp-sync'):.2f} of a handler that is told of every write.")


def broken(page, titles):
    """A row for each promise that a table says is broken."""
    families = {title: family for family, title in titles.items()}
    family, heads = None, []
    for line in page.splitlines():
        if line.startswith("### "):
            family, heads = families.get(line[4:]), []
        if family is None or not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        heads = heads or cells
        named = [(head, cell) for head, cell in zip(heads, cells) if head != "for comparison"]
        if heads[-1] == "for comparison":
            named += [tuple(one.split(": ", 1)) for one in cells[-1].split("; ") if ": " in one]
        for who, cell in named:
            for ratio, to, relation, bound in PROMISE.findall(cell):
                yield f"| `{family}/{cells[0].strip('`')}` | {who} | {ratio}{to or ' of C'} | {relation} {bound} |"


def between(page, marks, lines):
    """The page with these lines between two marks."""
    before, _, rest = page.partition(marks[0])
    return "\n".join([before + marks[0], "", *lines, "", marks[1]]) + rest.partition(marks[1])[2]


def with_findings(page, titles, twins):
    """The page with the findings and the broken promises that its tables have."""
    rows = list(broken(page, titles))
    head = ["| scenario | what | found | promised |", "|:--|:--|:--|--:|"]
    page = between(page, BROKEN, head + rows if rows else ["No promise is broken in this run."])
    return between(page, (BEGIN, END), [f"* {finding}" for finding in findings(medians(page, titles, twins))])
