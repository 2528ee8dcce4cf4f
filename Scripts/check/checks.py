"""What scripts of many checks share: their list, their verdicts, and the line at the end."""
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CHECKS = {}


class Wrong(Exception):
    pass


class Skip(Exception):
    pass


def check(function):
    CHECKS[function.__name__.replace("_", "-")] = function
    return function


def require(condition, message):
    if not condition:
        raise Wrong(message)


def run_checks(names, before=lambda: None, jobs=1, again=()):
    """Runs checks by their names, all if there are none; prints a line for each and the sums. Returns the exit code.

    With several jobs, each check runs in a process of its own: this program once more, with the arguments of `again`.
    """
    counts = {"passed": 0, "failed": 0, "skipped": 0}

    def run(name):
        return run_alone([sys.executable, "-B", sys.argv[0], *again, name], name) if jobs > 1 else run_here(name, before)

    with ThreadPoolExecutor(jobs) as pool:
        for outcome, line in pool.map(run, names or CHECKS):
            counts[outcome] += 1
            print(line, flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


def run_here(name, before):
    """A check's outcome and its line."""
    start = time.monotonic()
    try:
        before()
        CHECKS[name]()
        outcome, text = "passed", ""
    except Skip as skip:
        outcome, text = "skipped", f": {skip}"
    except (Wrong, subprocess.SubprocessError, OSError) as error:
        outcome, text = "failed", f": {error}"
    return outcome, f"{name}: {outcome} in {time.monotonic() - start:.1f} s{text}"


def run_alone(command, name):
    """As run_here, by a program that runs this check and prints its line and the sums."""
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    *lines, sums = ended.stdout.splitlines() or [""]
    for outcome in ("passed", "failed", "skipped"):
        if sums and f"1 {outcome}" in sums.split(", "):
            return outcome, "\n".join(lines)
    return "failed", f"{name}: failed: its process ended with {ended.returncode}: {ended.stdout}{ended.stderr}"


def parse(parser):
    """The options of such a script: those of its parser, --list, and names. Ends the program if it only has to list."""
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CHECKS))
        parser.exit()
    if unknown := set(options.names) - set(CHECKS):
        parser.error(f"no such checks: {', '.join(sorted(unknown))}")
    return options
