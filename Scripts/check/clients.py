#!/usr/bin/env python3
"""Runs uffd-pager with clients: simulators of Firecracker and others, each machine a process of its own.

usage: clients.py [--program FILE] [--jobs N] [--list] [NAME]...

Prints a line for each check, and ends with "N passed, N failed, N skipped". Without --program, uffd-pager is built.
Most checks wait for somebody: with --jobs, so many run at once.
Serving kernel-mode faults takes root, CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(REPO / "Scripts/check"), str(REPO / "Scripts/check/clients")]

import checks  # noqa: E402

# Each module adds its checks to the list, in this order.
import cloud_hypervisor  # noqa: E402, F401
import firecracker  # noqa: E402, F401
import handoff  # noqa: E402, F401
import kvm  # noqa: E402, F401
import checksums  # noqa: E402, F401
import nbd  # noqa: E402, F401
import serve  # noqa: E402, F401
import cache  # noqa: E402, F401
import record  # noqa: E402, F401
import pause  # noqa: E402, F401
import ending  # noqa: E402, F401
import limits  # noqa: E402, F401
import access  # noqa: E402, F401
import told  # noqa: E402, F401
import ctl  # noqa: E402, F401
import service  # noqa: E402, F401
import survive  # noqa: E402, F401
import successor  # noqa: E402, F401
import away  # noqa: E402, F401
import forks  # noqa: E402, F401
import keeping  # noqa: E402, F401
import arrival  # noqa: E402, F401
import store  # noqa: E402, F401
import stop  # noqa: E402, F401
import closed  # noqa: E402, F401
import unkillable  # noqa: E402, F401


def build():
    package = ["--package-path", str(REPO / "Tools"), "--scratch-path", str(REPO / ".build-tools")]
    if subprocess.run(["pkg-config", "--exists", "libnbd"], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        package += ["--traits", "NBD"]
    subprocess.run(["swift", "build", *package, "--product", "uffd-pager", "--quiet"], check=True)
    shown = subprocess.run(["swift", "build", *package, "--show-bin-path"], check=True, capture_output=True, text=True)
    return f"{shown.stdout.strip()}/uffd-pager"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program")
    parser.add_argument("--jobs", type=int, default=1)
    options = checks.parse(parser)
    program = os.path.abspath(options.program or build())
    os.environ["UFFD_PAGER"] = program
    return checks.run_checks(options.names, jobs=options.jobs, again=("--program", program))


if __name__ == "__main__":
    sys.exit(main())
