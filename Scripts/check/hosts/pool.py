"""A pool of huge pages that the run shares with other programs."""
import fcntl
import mmap
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from harness import LIMIT, POOL, USER, Skip, check, expect, in_mounts, program, require, run, whole

# The huge pages of the checks are of 2 MiB.
MAP_HUGETLB = 0x40000


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
        command = [program(), *whole("*/hugetlb"), "--no-system-changes"]
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
    return bool(select.select([file], [], [], 0.0005)[0])


@check
def lock_that_is_not_let_go_of():
    """Any user can hold the lock that keeps runs apart: the wait for it ends, and its holder is named."""
    directory = os.open("/proc/sys/vm", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        answer = run([*whole("selfcheck-host-provided"), "--time-budget", "3"], timeout=60)
        document = expect(answer, reason=f"another uffd-selftest run, process {os.getpid()} (", codes=(4,))
        notes = [note for note in document["notes"] if note.startswith("waiting for another uffd-selftest run")]
        causes = {result["cause"] for result in document["results"]}
        require(causes == {"chance"}, f"the causes are {causes}")
        require(len(notes) == 1 and notes[0].endswith(", for 3 seconds at most"), f"the wait is not told: {notes}")
    finally:
        os.close(directory)


@check
def lock_that_cannot_be_opened():
    """That is the host's lack: no other run has it."""
    script = "mount -t tmpfs none /proc/sys; mount -t tmpfs -o ro none /run"
    answer = run(whole("copy-swapped/anon"), in_mounts(script))
    document = expect(answer, reason="/proc/sys/vm cannot be opened, which keeps two runs apart", codes=(0, 4))
    causes = {r["cause"] for r in document["results"] if "cannot be opened" in (r["reason"] or "")}
    require(causes == {"host"}, f"the causes are {causes}")


@contextmanager
def lock_of_a_user():
    """A user who never lets go of the lock that keeps runs apart."""
    script = "import fcntl, os; fcntl.flock(os.open('/proc/sys/vm', 0), fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([*USER, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


@check
def lock_of_another_user():
    """Root waits for a moment, and does without it then, beside a second run of root that keeps away all the same."""
    with lock_of_a_user() as pid:
        for arguments, most in ((["--no-system-changes"], 30), ([], 30), (["--time-budget", "6"], 6)):
            start = time.monotonic()
            with huge_pages(40):
                document = expect(run([*whole("selfcheck-host-provided", "minor/hugetlb"), *arguments]), passes=1)
            took = time.monotonic() - start
            require(took < most, f"{arguments}: the run took {took} seconds")
            notes = [note for note in document["notes"] if "goes on without it" in note]
            require(len(notes) == 1 and f"process {pid} (" in notes[0], f"the lock's holder is not named: {notes}")
        commands = [[program(), *whole("selfcheck-host-[pr]*")] for _ in range(2)]
        runs = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for c in commands]
        for command, process in zip(commands, runs):
            output, _ = process.communicate(timeout=LIMIT)
            expect(subprocess.CompletedProcess(command, process.returncode, output, ""), passes=2)


@check
def quick_run_beside_another():
    """A quick run does not wait for minutes, neither root's nor a user's."""
    directory = os.open("/proc/sys/vm", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        for prefix in ([], USER):
            with huge_pages(40):
                document = expect(run([*whole(), "--quick"], prefix, timeout=60), passes=20)
            waits = [note for note in document["notes"] if note.startswith("waiting for another")]
            require(all(wait.endswith(", for 1 seconds at most") for wait in waits) and waits, f"{waits}")
            reasons = {r["reason"] for r in document["results"] if r["outcome"] == "skip"}
            require(any(f"another uffd-selftest run, process {os.getpid()} (" in reason for reason in reasons), f"{reasons}")
    finally:
        os.close(directory)


@check
def two_runs_with_one_pool():
    with huge_pages(40):
        commands = [[program(), *whole("*/hugetlb*"), "--no-system-changes"] for _ in range(2)]
        with tempfile.TemporaryDirectory() as directory:
            files = [open(f"{directory}/{number}", "w+", encoding="utf-8") for number in range(2)]
            runs = [subprocess.Popen(c, stdout=f, stderr=subprocess.DEVNULL) for c, f in zip(commands, files)]
            for command, process, file in zip(commands, runs, files):
                code = process.wait(LIMIT)
                file.seek(0)
                expect(subprocess.CompletedProcess(command, code, file.read(), ""), passes=100)


@contextmanager
def hog(seconds, most=1 << 20):
    """Takes every free page, or the most of them that may be taken, for so long, again and again."""
    stop = threading.Event()

    def take():
        while not stop.wait(seconds):
            size = min(most, free_huge_pages()) << 21
            try:
                with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB) as memory:
                    for offset in range(0, size, 1 << 21):
                        memory[offset] = 1
                    stop.wait(seconds)
            except (OSError, ValueError):
                continue

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@check
def pool_that_is_taken_meanwhile():
    """Another program takes every free page for a while, again and again, also while a case uses some."""
    with huge_pages(40), hog(0.4):
        # While the pages are taken, hundreds of results are skipped at once.
        document = expect(run([*whole("*/hugetlb*"), "--no-system-changes", "--repeat", "20"]), passes=60)
    reasons = {r["reason"] for r in document["results"] if (r["reason"] or "").startswith("this time")}
    for reason in sorted(reasons):
        require(f"process {os.getpid()}" in reason, f"'{reason}' does not name this program")


@check
def pool_that_is_taken_for_moments():
    """The pages are there again before anybody looks for what has become of them."""
    names = [f"{name}/hugetlb*" for name in ("continue-huge-pool", "wake-range", "wake-unresolved", "fill-past-eof")]
    with huge_pages(120):
        for most in (1 << 20, 5):
            with hog(0.01, most):
                expect(run([*whole(*names), "--no-system-changes", "--repeat", "3"]), codes=(0, 4))
