#!/usr/bin/env python3
"""Many machines in one uffd-pager, as ratios: Scripts/bench/machines.py [--real-time] [--rounds N] [MEASUREMENT...]

MEASUREMENT is one of these; all of them unless given:
  scattered  time until 64 machines have 256 scattered pages each, of one uffd-pager / of a C handler in a process for each
  populate   median of a machine's faults while all memory of another is loaded / without

Ratios are those of one round; the median of all rounds is printed, with the least and the largest. The first round does not
count. --program names a program that was built already; else it is built, with optimization. With --real-time, which needs
root, machines and handlers of "scattered" go before everything else on the machine.
"""
import argparse
import os
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "Scripts/check"), str(REPO / "Scripts/check/clients")]

from harness import Lines, Pager, compile_c, folder, require, server_of  # noqa: E402
from serve import Connection, ask, ctl, threads_of  # noqa: E402
from survive import large_file  # noqa: E402

MACHINES, PAGES = 64, 256
MEMORY, LARGE = 64 << 20, 2 << 30


def build():
    package = ["--package-path", str(REPO / "Tools"), "--scratch-path", str(REPO / ".build-tools"), "-c", "release"]
    subprocess.run(["swift", "build", *package, "--product", "uffd-pager", "--quiet"], check=True)
    shown = subprocess.run(["swift", "build", *package, "--show-bin-path"], check=True, capture_output=True, text=True)
    return f"{shown.stdout.strip()}/uffd-pager"


class Bench:
    def __init__(self, directory, rounds, prefix):
        self.directory, self.rounds, self.prefix = directory, rounds, prefix
        self.client = directory / "machines"
        compile_c(self.client, "Tests/Clients/Machines/machines.c")

    def run(self, mode, path, memory, machines=MACHINES, pages=PAGES):
        """How long all machines took, the median and the 99th percentile of a touch, in nanoseconds."""
        arguments = map(str, (*self.prefix, self.client, mode, path, memory, machines, pages))
        found = subprocess.run(list(arguments), check=True, capture_output=True, text=True, timeout=300)
        return tuple(map(int, found.stdout.split()))

    def report(self, name, pairs, what):
        ratios = sorted(one / other for one, other in pairs[1:])
        middle = [statistics.median(values) / 1000 for values in zip(*pairs[1:])]
        print(f"{name}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
              f"{what}: {middle[0]:.1f} us / {middle[1]:.1f} us", flush=True)

    def scattered(self):
        memory, path = large_file(self.directory, MEMORY), self.directory / "socket"
        with Pager("handoff", "--quiet", "--socket", path, "--memory", memory, "--drain", "0",
                   prefix=self.prefix) as pager:
            while not path.exists():
                time.sleep(0.01)
            pairs, threads = [], []
            for number in range(self.rounds + 1):
                modes = ["pager", "alone"] if number % 2 else ["alone", "pager"]
                found = {mode: self.run(mode, path, memory) for mode in modes}
                pairs.append((found["pager"], found["alone"]))
                threads.append(len(threads_of(server_of(pager))))
        for index, what in enumerate(("all", "median of a touch", "99th percentile of a touch")):
            self.report("scattered", [(one[index], other[index]) for one, other in pairs], what)
        print(f"scattered: {max(threads)} threads of the server, between rounds", flush=True)

    def populate(self):
        small, control = large_file(self.directory, MEMORY), self.directory / "control"
        os.rename(small, self.directory / "small.mem")
        files = {"small": self.directory / "small.mem", "large": large_file(self.directory, LARGE)}
        # As every other program: threads of real-time priority that load all memory give way to nobody.
        self.prefix = []
        with Pager("serve", "--control", control, "--drain", "0") as pager:
            pager.says("ready")
            for name, memory in files.items():
                ctl(control, "add", name, "--socket", self.directory / name, "--memory", memory, "--format", "handoff")

            def median():
                return self.run("pager", self.directory / "small", files["small"], machines=1)[1]

            pairs = []
            for _ in range(self.rounds + 1):
                alone = median()
                other = Lines([self.client, "waits", self.directory / "large", files["large"]])
                require(other.next() == "served", other.errors())
                request = Connection(control)
                request.request("POST", "/v1/machines/large/populate")
                while not is_loading(control):
                    require(not select.select([request.sock], [], [], 0)[0], "all was loaded before anything was measured")
                beside = median()
                require(is_loading(control), "the loading was over too soon: a larger memory is needed")
                pairs.append((beside, alone))
                other.end()
                other.close()
                request.getresponse().read()
                request.close()
            self.report("populate", pairs, "median of a touch")


def is_loading(control):
    _, machine = ask(control, "GET", "/v1/machines/large")
    return any("loading" in session for session in machine["sessions"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--real-time", action="store_true")
    parser.add_argument("measurements", nargs="*", metavar="MEASUREMENT", help="scattered, populate")
    options = parser.parse_args()
    os.environ["UFFD_PAGER"] = os.path.abspath(options.program or build())
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors", flush=True)
    with folder() as directory:
        bench = Bench(directory, options.rounds, ["chrt", "-f", "50"] if options.real_time else [])
        for name in options.measurements or ("scattered", "populate"):
            {"scattered": bench.scattered, "populate": bench.populate}[name]()


if __name__ == "__main__":
    main()
