"""What the checks of selftest-hosts.py share: to run the selftest on a host, and to judge what came of it."""
import json
import os
import resource
import subprocess
from pathlib import Path

from checks import Skip, Wrong, check, require  # noqa: F401

USER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
POOL = Path("/proc/sys/vm/nr_hugepages")
# How long a run may take, in seconds: a host under test may be slow.
LIMIT = 900


def program():
    """The program under test, where any user can execute it."""
    return os.environ["UFFD_SELFTEST"]


def run(arguments, prefix=(), limits=None, **options):
    """Runs the selftest, its limits changed before it starts; returns its completed process."""

    def lower():
        for limit, value in (limits or {}).items():
            resource.setrlimit(limit, (value, value))

    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": LIMIT} | options
    return subprocess.run([*prefix, program(), *arguments], preexec_fn=lower, **options)


def report(answer):
    try:
        return json.loads(answer.stdout)
    except ValueError as error:
        raise Wrong(f"no report ({error}), exit {answer.returncode}: {answer.stderr[-500:]}") from error


def expect(answer, *, passes=0, reason=None, codes=(0,)):
    """No failure, a lawful exit, at least so many passes, and a skip that names what is lacking."""
    document = report(answer)
    failures = [f"{r['case']}/{r['memory']}: {r['reason']}" for r in document["results"] if r["outcome"] == "fail"]
    require(not failures, f"{len(failures)} failures, such as {failures[0] if failures else ''}")
    left = [note for note in document.get("notes", []) if note.startswith("not put back")]
    require(not left, f"the host is not as it was: {left}")
    require(answer.returncode in codes, f"exit {answer.returncode}: {answer.stderr[-300:]}")
    passed = document["totals"]["pass"] + document["totals"]["xpass"]
    require(passed >= passes, f"only {passed} passes")
    if reason:
        reasons = {r["reason"] for r in document["results"] if r["outcome"] == "skip"}
        require(any(reason in text for text in reasons), f"no skip says '{reason}'")
    return document


def whole(*filters):
    # What this kernel is known for is no fault of the host that is made.
    known = ["--known-failures", os.environ["UFFD_SELFTEST_KNOWN"]]
    return ["run", "--format", "json", *known, *(word for glob in filters for word in ("--filter", glob))]


def shell(script):
    """A prefix that runs a script first, with the rest of the command line as "$@"."""
    return ["sh", "-c", script + '\nexec "$@"', "sh"]


def in_mounts(script):
    return ["unshare", "--mount", *shell("set -e\n" + script)]
