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
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(REPO / "Scripts/check"), str(REPO / "Scripts/check/hosts")]

# Each module adds its checks to the list, in this order.
import limits  # noqa: E402, F401
import mounts  # noqa: E402, F401
import pool  # noqa: E402, F401
import reports  # noqa: E402, F401
import verdicts  # noqa: E402, F401
import checks  # noqa: E402


def needs_root():
    if os.geteuid() != 0:
        raise checks.Skip("making hosts needs root")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selftest")
    options = checks.parse(parser)
    if not options.selftest:
        subprocess.run([REPO / "Scripts/selftest.sh", "list"], check=True, stdout=subprocess.DEVNULL)
        options.selftest = REPO / ".build-static/release/uffd-selftest"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        # Where any user can execute it, whatever is mounted over /tmp.
        os.chmod(directory, 0o755)
        program = f"{directory}/uffd-selftest"
        os.environ["UFFD_SELFTEST"] = program
        subprocess.run(["install", "-m", "755", options.selftest, program], check=True)
        known = os.environ["UFFD_SELFTEST_KNOWN"] = f"{directory}/known-bugs.json"
        subprocess.run(["install", "-m", "644", REPO / "Tests/KernelMatrix/known-bugs.json", known], check=True)
        return checks.run_checks(options.names, before=needs_root)


if __name__ == "__main__":
    sys.exit(main())
