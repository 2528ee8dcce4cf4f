"""What scripts of many checks share: their list, their verdicts, and the line at the end."""
import subprocess
import time

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


def run_checks(names, before=lambda: None):
    """Runs checks by their names, all if there are none; prints a line for each and the sums. Returns the exit code."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name in names or CHECKS:
        start = time.monotonic()
        try:
            before()
            CHECKS[name]()
            outcome, text = "passed", ""
        except Skip as skip:
            outcome, text = "skipped", f": {skip}"
        except (Wrong, subprocess.SubprocessError, OSError) as error:
            outcome, text = "failed", f": {error}"
        counts[outcome] += 1
        print(f"{name}: {outcome} in {time.monotonic() - start:.1f} s{text}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


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
