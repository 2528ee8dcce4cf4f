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
from harness import CASES, Host, Trouble, adopt_orphans, expect, wait_until


def one_restore(host, dump, make_daemon):
    """Seconds from the start of the restore to the daemon's end, and the daemon's greatest memory in kB."""
    daemon = make_daemon(dump).ready()
    try:
        start = time.monotonic()
        try:
            host.restore(dump)
        except Trouble as trouble:
            raise Trouble(f"{trouble}; the daemon: {daemon.wait().output}") from trouble
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
    load = os.getloadavg()[0]
    print("| restored | CRIU's own daemon: seconds | `uffd-pager`: seconds | time | memory in MiB |")
    print("|:--|--:|--:|--:|--:|", flush=True)
    for kind, what in cases.WORDS.items():
        numbers = {"own": [], "ours": []}
        for _ in range(rounds):
            numbers["own"].append(one_restore(host, dumps[kind], host.own_lazy_pages))
            numbers["ours"].append(one_restore(host, dumps[kind], host.lazy_pages))
        columns, medians = [], []
        for name in ("own", "ours"):
            seconds, memory = zip(*numbers[name])
            medians.append((statistics.median(seconds), statistics.median(memory)))
            columns.append(f"{medians[-1][0]:.3f} ({min(seconds):.3f} to {max(seconds):.3f})")
        (own, own_memory), (ours, our_memory) = medians
        print(f"| `{kind}`: {what} | {columns[0]} | {columns[1]} | x{ours / own:.2f} | {own_memory / 1024:.1f} to {our_memory / 1024:.1f} |",
              flush=True)
    print(f"\nMedians of {rounds} rounds, with the lowest and the highest. Load {load:.1f} before and {os.getloadavg()[0]:.1f} after "
          f"the run, on {os.cpu_count()} processors.")


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
