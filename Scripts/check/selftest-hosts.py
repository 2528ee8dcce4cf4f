#!/usr/bin/env python3
"""Runs uffd-selftest on hosts that lack something, and checks that no correct kernel is blamed and no verdict lost.

usage: selftest-hosts.py [--selftest FILE] [--list] [NAME]...

The hosts are made with unshare, prlimit, small file systems and other programs that use what a run needs; that takes
root. Prints a line for each check, and ends with "N passed, N failed, N skipped". Without --selftest the program is
built by Scripts/selftest.sh.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(REPO / "Scripts/check/hosts"))

# Each module adds its checks to the list, in this order.
import limits  # noqa: E402, F401
import pool  # noqa: E402, F401
import verdicts  # noqa: E402, F401
from harness import CHECKS, Skip, Wrong  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selftest")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CHECKS))
        return 0
    unknown = set(options.names) - set(CHECKS)
    if unknown:
        parser.error(f"no such checks: {', '.join(sorted(unknown))}")
    if not options.selftest:
        subprocess.run([REPO / "Scripts/selftest.sh", "list"], check=True, stdout=subprocess.DEVNULL)
        options.selftest = REPO / ".build-static/release/uffd-selftest"
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        # Where any user can execute it, whatever is mounted over /tmp.
        os.chmod(directory, 0o755)
        program = f"{directory}/uffd-selftest"
        os.environ["UFFD_SELFTEST"] = program
        subprocess.run(["install", "-m", "755", options.selftest, program], check=True)
        for name in options.names or CHECKS:
            start = time.monotonic()
            try:
                if os.geteuid() != 0:
                    raise Skip("making hosts needs root")
                CHECKS[name]()
                outcome, text = "passed", ""
            except Skip as skip:
                outcome, text = "skipped", f": {skip}"
            except (Wrong, subprocess.SubprocessError) as error:
                outcome, text = "failed", f": {error}"
            counts[outcome] += 1
            print(f"{name}: {outcome} in {time.monotonic() - start:.1f} s{text}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
