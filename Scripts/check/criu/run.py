#!/usr/bin/env python3
"""Restores tasks that real CRIU has dumped with `uffd-pager criu-lazy-pages` in place of CRIU's own daemon.

usage: run.py --criu PROGRAM --pager PROGRAM --dumpee PROGRAM [--compare ROUNDS] [CASE...]

Ends with a line "N passed, N failed, N skipped". With --compare it prints a table of both daemons in place of the cases.
"""
import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time

import cases
import server_cases  # noqa: F401 (adds its cases)
from harness import CASES, Host, adopt_orphans, expect, wait_until


def one_restore(host, dump, make_daemon):
    """Seconds from the start of the restore to the daemon's end, and the daemon's greatest memory in kB."""
    daemon = make_daemon(dump).ready()
    try:
        start = time.monotonic()
        host.restore(dump)
        dump.go()
        ended = daemon.wait()
        seconds = time.monotonic() - start
        code = host.reap(dump)
        wait_until(lambda: all(dump.results()), "the results", 10)
    finally:
        daemon.kill()
        host.kill_tasks(dump)
    expect(code == 0 and ended.code == 0, f"{code}, {ended.code}: {ended.output}")
    return seconds, ended.kilobytes


def compare(host, dumps, rounds):
    """Both daemons in turn, so that what else the host does meets both."""
    print(f"{'':10} {'own daemon':>24} {'uffd-pager':>24} {'ratio of medians':>20}")
    print(f"{'':10} {'s, median (range)':>24} {'s, median (range)':>24} {'time':>10} {'memory':>9}")
    for kind in cases.KINDS:
        numbers = {"own": [], "ours": []}
        for _ in range(rounds):
            numbers["own"].append(one_restore(host, dumps[kind], host.own_lazy_pages))
            numbers["ours"].append(one_restore(host, dumps[kind], host.lazy_pages))
        columns, medians = [], []
        for name in ("own", "ours"):
            seconds, memory = zip(*numbers[name])
            medians.append((statistics.median(seconds), statistics.median(memory)))
            columns.append(f"{medians[-1][0]:.3f} ({min(seconds):.3f}-{max(seconds):.3f})")
        ratio = medians[1][0] / medians[0][0], medians[1][1] / medians[0][1]
        print(f"{kind:10} {columns[0]:>24} {columns[1]:>24} {ratio[0]:>10.2f} {ratio[1]:>9.2f}"
              f"   {medians[0][1] / 1024:.1f} -> {medians[1][1] / 1024:.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("criu", "pager", "dumpee"):
        parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
    parser.add_argument("--compare", type=int, metavar="ROUNDS")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    adopt_orphans()
    folder = tempfile.mkdtemp(prefix="criu-")
    host = Host(options.criu, options.pager, options.dumpee, folder)
    dumps = cases.Dumps(host)
    try:
        if options.compare:
            compare(host, dumps, options.compare)
            return 0
        return run(host, dumps, options.cases)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(host, dumps, names):
    passed, failed = 0, []
    for case in CASES:
        if names and case.__name__ not in names:
            continue
        start = time.monotonic()
        try:
            case(host, dumps)
            passed += 1
            print(f"ok      {case.__name__}  {time.monotonic() - start:.1f} s", flush=True)
        except Exception as error:  # a case's own fault counts as a failure, too
            failed.append(case.__name__)
            print(f"FAILED  {case.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {len(failed)} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
