#!/usr/bin/env python3
"""Runs uffd-selftest on hosts that lack something, and checks that no correct kernel is blamed and no verdict lost.

usage: selftest-hosts.py [--selftest FILE] [--list] [NAME]...

The hosts are made with unshare, prlimit, small file systems and other programs that use what a run needs; that takes
root. Prints a line for each check, and ends with "N passed, N failed, N skipped". Without --selftest the program is
built by Scripts/selftest.sh.
"""
import argparse
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# The huge pages of the checks are of 2 MiB.
MAP_HUGETLB = 0x40000
POOL = Path("/proc/sys/vm/nr_hugepages")
USER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
CHECKS = {}
PROGRAM = ""
# What becomes of a run: long enough for a slow host, which is one of the things under test.
LIMIT = 900


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


def run(arguments, prefix=(), limits=None, **options):
    """Runs the selftest, its limits changed before it starts; answers its completed process."""

    def lower():
        for limit, value in (limits or {}).items():
            resource.setrlimit(limit, (value, value))

    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": LIMIT} | options
    return subprocess.run([*prefix, PROGRAM, *arguments], preexec_fn=lower, **options)


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
    require(document["totals"]["pass"] >= passes, f"only {document['totals']['pass']} passes")
    if reason:
        reasons = {r["reason"] for r in document["results"] if r["outcome"] == "skip"}
        require(any(reason in text for text in reasons), f"no skip says '{reason}'")
    return document


def whole(*filters):
    return ["run", "--format", "json", *(word for glob in filters for word in ("--filter", glob))]


def shell(script):
    """A prefix that runs a script first, with the rest of the command line as "$@"."""
    return ["sh", "-c", script + '\nexec "$@"', "sh"]


def in_mounts(script):
    return ["unshare", "--mount", *shell("set -e\n" + script)]


# The hosts.


@check
def root_of_a_container():
    expect(run(whole(), ["unshare", "-Urmpf", "--mount-proc"]), passes=800, reason="initial user namespace")


@check
def few_descriptors():
    expect(run(whole(), USER, {resource.RLIMIT_NOFILE: 20}), passes=500, reason="ulimit -n")


@check
def too_few_descriptors_to_run():
    expect(run(whole(), USER, {resource.RLIMIT_NOFILE: 8}), reason="ulimit -n", codes=(4,))


@check
def few_processes():
    script = "ulimit -u 4"
    expect(run(whole(), [*USER, "bash", "-c", script + '; exec "$@"', "bash"]), reason="ulimit -u", codes=(0, 4))


@check
def little_address_space():
    expect(run(whole(), USER, {resource.RLIMIT_AS: 1000000 << 10}), passes=500)
    expect(run(whole(), USER, {resource.RLIMIT_AS: 250000 << 10}), reason="ulimit -v", codes=(0, 4))


@check
def no_locked_memory():
    expect(run(whole(), USER, {resource.RLIMIT_MEMLOCK: 0}), passes=500, reason="ulimit -l")


@check
def no_core_dumps():
    """A case that never saw a core cannot pass: whoever may raise no limit has none."""
    prefix = ["setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]
    expect(run(whole("process-core-dump"), prefix, {resource.RLIMIT_CORE: 0}), reason="no core was written", codes=(4,))


@check
def small_tmpfs():
    mounts = "\n".join(f"mount -t tmpfs -o size=64k,mode=1777 none {d}" for d in ("/dev/shm", "/tmp"))
    expect(run(whole(), in_mounts(mounts + "\nmount -t tmpfs -o size=64k none /run")), passes=600, reason="on a tmpfs")


@check
def no_tmpfs():
    hide = "\n".join(f"mount -t ramfs none {d}" for d in ("/dev/shm", "/tmp", "/run"))
    expect(run(whole(), in_mounts(hide)), passes=600, reason="no tmpfs is mounted")


@check
def small_stack():
    limits = {resource.RLIMIT_STACK: 1024 << 10}
    expect(run(whole("*-many-mappings/*", "fault-*", "wake-*", "*unmap*"), [], limits), passes=50)


@check
def read_only_run():
    answer = expect(run(whole("selfcheck-host-provided"), in_mounts("mount -t tmpfs -o ro none /run")), codes=(0, 4))
    text = json.dumps(answer)
    require("does not let go" not in text, "another run is blamed that there is not")


@check
def no_run():
    """A root with everything but /run."""
    script = """set -e
        root=$(mktemp -d)
        mount -t tmpfs none "$root"
        for directory in proc sys dev bin lib lib64 usr var tmp; do
            [ -d /$directory ] || continue
            mkdir "$root/$directory"
            mount --rbind /$directory "$root/$directory"
        done
        exec chroot "$root" "$@\""""
    prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]
    answer = expect(run(whole("selfcheck-host-provided"), prefix), codes=(0, 4))
    require("does not let go" not in json.dumps(answer), "another run is blamed that there is not")


@check
def no_proc():
    expect(run(whole(), in_mounts("umount -l /proc")), reason="mount -t proc", codes=(4,))


# Huge pages that others use.


@contextmanager
def huge_pages(count):
    if "Hugepagesize:       2048 kB" not in Path("/proc/meminfo").read_text():
        raise Skip("the default huge page has not 2 MiB")
    before = int(POOL.read_text())
    POOL.write_text(str(before + count))
    try:
        if int(POOL.read_text()) < before + count:
            raise Skip("not enough memory for huge pages")
        yield
    finally:
        POOL.write_text(str(before))


def free_huge_pages():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["HugePages_Free"])


@check
def pool_that_others_use():
    """Another program must never find the pool empty."""
    with huge_pages(40):
        least = free_huge_pages()
        command = [PROGRAM, *whole("*/hugetlb"), "--no-system-changes"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            os.set_blocking(process.stdout.fileno(), True)
            output = []
            while process.poll() is None:
                least = min(least, free_huge_pages())
                if select_readable(process.stdout):
                    output.append(os.read(process.stdout.fileno(), 1 << 16).decode())
            output.append(process.stdout.read())
        require(least > 0, "the run took the last huge page")
        answer = subprocess.CompletedProcess(command, process.returncode, "".join(output), "")
        expect(answer, passes=50, reason="system changes are not allowed")


def select_readable(file):
    import select

    return bool(select.select([file], [], [], 0.0005)[0])


@check
def two_runs_with_one_pool():
    with huge_pages(40):
        commands = [[PROGRAM, *whole("*/hugetlb*"), "--no-system-changes"] for _ in range(2)]
        with tempfile.TemporaryDirectory() as directory:
            files = [open(f"{directory}/{number}", "w+", encoding="utf-8") for number in range(2)]
            runs = [subprocess.Popen(c, stdout=f, stderr=subprocess.DEVNULL) for c, f in zip(commands, files)]
            for command, process, file in zip(commands, runs, files):
                code = process.wait(LIMIT)
                file.seek(0)
                expect(subprocess.CompletedProcess(command, code, file.read(), ""), passes=100)


@check
def pool_that_is_taken_meanwhile():
    """Another program takes every free page for a while, again and again, also while a case uses some."""
    stop = threading.Event()

    def hog():
        while not stop.wait(0.4):
            size = free_huge_pages() << 21
            try:
                with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB) as memory:
                    for offset in range(0, size, 1 << 21):
                        memory[offset] = 1
                    stop.wait(0.4)
            except (OSError, ValueError):
                continue

    with huge_pages(40):
        thread = threading.Thread(target=hog)
        thread.start()
        try:
            document = expect(run([*whole("*/hugetlb*"), "--no-system-changes"]), codes=(0, 4))
        finally:
            stop.set()
            thread.join()
    reasons = {r["reason"] for r in document["results"] if (r["reason"] or "").startswith("this time")}
    for reason in sorted(reasons):
        require(f"process {os.getpid()}" in reason, f"'{reason}' does not name this program")


# Verdicts.


def expect_unwritable(answer, name):
    require(answer.returncode == 74, f"{name}: exit {answer.returncode}, not 74")
    require("cannot be written" in answer.stderr, f"{name}: standard error says '{answer.stderr[-200:]}'")


PASSING = "selfcheck-pass/*"


@check
def report_that_cannot_be_written():
    for form in ("tap", "json", "junit", "pretty"):
        arguments = ["run", "--filter", PASSING, "--format", form]
        expect_unwritable(run([*arguments, "--output", "/dev/full"]), f"--output /dev/full, {form}")
        with open("/dev/full", "w", encoding="utf-8") as full:
            expect_unwritable(run(arguments, stdout=full), f"full standard output, {form}")
        closed = run(arguments, ["sh", "-c", 'exec "$@" >&-', "sh"])
        expect_unwritable(closed, f"closed standard output, {form}")
    for arguments in (["list"], ["probe"], ["stress", "anon", "1", "1"]):
        with open("/dev/full", "w", encoding="utf-8") as full:
            expect_unwritable(run(arguments, stdout=full), " ".join(arguments))


@check
def reader_that_goes_away():
    read, write = os.pipe()
    os.close(read)
    answer = run(["run", "--filter", PASSING], stdout=write)
    os.close(write)
    expect_unwritable(answer, "a pipe that nobody reads")


@check
def numbers_that_are_too_large():
    for arguments in (
        ["run", "--timeout", "inf"], ["run", "--timeout", "nan"], ["run", "--timeout", "1e30"], ["run", "--timeout", "0"],
        ["run", "--repeat", "99999999999999999999"], ["run", "--repeat", "9223372036854775807"],
        ["stress", "anon", "1", "1", "--seconds", "1e30"], ["stress", "anon", "1", "1", "--seconds", "inf"],
        ["stress", "anon", "9223372036854775807", "1"], ["stress", "anon", "1", "9223372036854775807"],
        ["stress", "anon", "1", "1", "--threads", "9223372036854775807"],
    ):
        answer = run(arguments)
        require(answer.returncode == 64, f"{' '.join(arguments)}: exit {answer.returncode}, not 64")


@check
def case_by_hand():
    for name, code in (("selfcheck-pass/shmem", 0), ("selfcheck-fail", 1), ("selfcheck-skip", 4), ("nothing", 1)):
        answer = run(["run-case", name])
        require(answer.returncode == code, f"run-case {name}: exit {answer.returncode}, not {code}")


@contextmanager
def holding_run():
    """A run whose one case has everything that a run can change, and waits."""
    command = [PROGRAM, "run", "--filter", "selfcheck-host-hold", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: "run-case selfcheck-host-hold" in " ".join(map(command_of, children(process.pid))), "the case starts")
            yield process
        finally:
            process.kill()


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(f"still not so: {what}")
        time.sleep(0.02)


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def host_state():
    files = [POOL, "/proc/sys/vm/unprivileged_userfaultfd", "/sys/kernel/mm/transparent_hugepage/enabled"]
    state = {str(file): Path(file).read_text() for file in files}
    state["swaps"] = sorted(line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:])
    for directory in ("/sys/block", "/var/tmp", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
        names = os.listdir(directory) if os.path.isdir(directory) else []
        state[directory] = sorted(n for n in names if n.startswith(("zram", "uffd-selftest")))
    return state


@check
def guardian_that_dies():
    before = host_state()
    with holding_run() as process:
        guardian = [pid for pid in children(process.pid) if "guard" in command_of(pid)]
        require(len(guardian) == 1, f"the guardian is not found: {guardian}")
        require(host_state() != before, "the run has changed nothing")
        os.kill(guardian[0], signal.SIGKILL)
        case = [pid for pid in children(process.pid) if "run-case" in command_of(pid)]
        os.kill(case[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=120)
    require(process.returncode == 1, f"exit {process.returncode}: {errors[-300:]}")
    document = json.loads(output)
    require("has died" in json.dumps(document), "nothing says that the guardian has died")
    after = host_state()
    require(after == before, f"the host is not as it was: {after} instead of {before}")


@check
def interrupted_json():
    with holding_run() as process:
        process.terminate()
        output, _ = process.communicate(timeout=120)
    require(process.returncode == -signal.SIGTERM, f"exit {process.returncode}")
    document = json.loads(output)
    require(document.get("interrupted") == "SIGTERM", f"interrupted: {document.get('interrupted')}")
    require(document["planned"] == 1 and not document["results"], "what was planned is not told")


def main():
    global PROGRAM
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
        PROGRAM = f"{directory}/uffd-selftest"
        subprocess.run(["install", "-m", "755", options.selftest, PROGRAM], check=True)
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
