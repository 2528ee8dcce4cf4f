"""Guests of KVM: their pages are touched by the kernel for them, while their monitor is in KVM_RUN."""
import contextlib
import fcntl
import functools
import os
import signal
import subprocess
import tempfile

from firecracker import serving
from harness import LIMIT, Lines, Skip, Wrong, check, compile_c, require, server_of
from memory import PAGE

PAGES = 256
MASK = 0xFFFFFFFF


@functools.cache
def monitor():
    """The monitor, built, in a folder that stays as long as this process; and the code of its guest."""
    folder = tempfile.TemporaryDirectory(dir="/var/tmp")
    program = f"{folder.name}/monitor"
    compile_c(program, "Tests/Clients/KVM/monitor.c", "Tests/CTestSupport/cts_guest.c",
              "-I", "Tests/CTestSupport/include")
    probe = subprocess.run([program, "probe"], capture_output=True, check=False, text=True, timeout=LIMIT)
    if probe.returncode == 77:
        raise Skip(probe.stderr.strip().removeprefix("monitor: "))
    require(probe.returncode == 0, f"no guest runs here: {probe.returncode}, {probe.stderr}")
    code = subprocess.run([program, "code"], capture_output=True, check=True, timeout=LIMIT).stdout
    return program, code, folder


def page_sum(page):
    """As the guest makes it."""
    return sum(memoryview(page).cast("I")) & MASK


class Guest:
    """A monitor with its guest. What is expected of the memory is kept here."""

    def __init__(self, path, expected):
        self.memory = bytearray(expected)
        self.lines = Lines([monitor()[0], str(path), str(len(expected) // PAGE)])

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.lines.close()

    def tell(self, command, first=0, count=PAGES, *more):
        self.lines.tell(" ".join(map(str, (command, first, count, *more))))

    def compare(self, command, first=0, count=PAGES):
        """Has the guest or the monitor read pages, and compares them."""
        self.tell(command, first, count)
        self.all_sums(first, count)

    def all_sums(self, first=0, count=PAGES):
        if self.sums(first) != count:
            raise Wrong(f"the monitor ended with {self.lines.end()}: {self.lines.errors()}")

    def sums(self, first):
        """Compares the sums that come until the command is done or the monitor has ended: how many did."""
        page = first
        while (line := self.lines.next()) not in ("done", ""):
            expected = page_sum(self.memory[page * PAGE:(page + 1) * PAGE])
            require(int(line) == expected, f"page {page} sums up to {line}, not {expected}")
            page += 1
        return page - first

    def write(self, first, count, value):
        self.tell("write", first, count, value)
        require(self.lines.next() == "done", f"the guest does not write: {self.lines.errors()}")
        for index in range(count):
            place = (first + index) * PAGE
            self.memory[place:place + 4] = ((value + index) & MASK).to_bytes(4, "little")

    def drop(self, first, count):
        self.tell("drop", first, count)
        require(self.lines.next() == "done", f"the balloon fails: {self.lines.errors()}")
        self.memory[first * PAGE:(first + count) * PAGE] = bytes(count * PAGE)

    def ends(self, *codes):
        code = self.lines.end()
        require(code in codes, f"the monitor ended with {code}: {self.lines.errors()}")


@contextlib.contextmanager
def serving_guests(*options, pages=PAGES):
    """The program, its socket, and what is in the memory: the guest's code, too, is loaded when it is needed."""
    code = monitor()[1]
    with serving(*options, size=pages * PAGE, begin=code) as served:
        yield served


@check
def kvm_reads_and_writes():
    with serving_guests() as (pager, path, expected):
        with Guest(path, expected) as guest:
            # Pages that are written before they are loaded, between others that are read first.
            guest.write(40, 80, 0xFFFFFFF0)
            guest.compare("read")
            guest.write(100, 100, 7)
            guest.compare("read", 90, 120)
            guest.compare("see")
            guest.ends(0)
        pager.says("ended")
        require("error" not in pager.output(), f"the end of a guest is an error: {pager.output()}")


@check
def kvm_reads_while_everything_is_loaded():
    with serving_guests("--populate", pages=1024) as (_, path, expected):
        with contextlib.ExitStack() as stack:
            guests = [stack.enter_context(Guest(path, expected)) for _ in range(2)]
            for guest in guests:
                guest.tell("read", 0, 1024)
            for guest in guests:
                guest.all_sums(0, 1024)
                guest.ends(0)


@check
def kvm_balloon():
    """What the balloon took is zeros for the guest, whether it was loaded or not; what it writes then, stays."""
    with serving_guests() as (_, path, expected), Guest(path, expected) as guest:
        guest.compare("read", 0, 64)
        guest.drop(32, 64)
        guest.compare("read")
        guest.drop(128, 64)
        guest.write(140, 20, 1)
        guest.compare("read")
        guest.compare("see")
        guest.ends(0)


@check
def kvm_lost_page():
    """A page that cannot be loaded ends the guest: with SIGBUS or EFAULT of KVM_RUN, or with its monitor."""
    for policy, ends in (("poison", (-signal.SIGBUS, 1)), ("kill", (-signal.SIGKILL,))):
        with serving_guests("--on-failure", policy) as (pager, path, expected), Guest(path, expected) as guest:
            guest.compare("read", 0, 4)
            os.truncate(pager.folder / "memory", PAGE)
            guest.tell("read", 4, PAGES - 4)
            require(guest.sums(4) < PAGES - 4, "the guest has read pages that were lost")
            guest.ends(*ends)
            require(guest.lines.end() != 1 or "Bad address" in guest.lines.errors(),
                    f"KVM_RUN failed otherwise: {guest.lines.errors()}")
            pager.process.terminate()
            pager.ends(1)


@check
def kvm_handler_killed():
    """The server is killed while the guest is on its way through its memory."""
    pages = 2048
    with serving_guests(pages=pages) as (pager, path, expected), Guest(path, expected) as guest:
        # The monitor writes a line for each page into a pipe that has room for few, so it cannot be done before.
        fcntl.fcntl(guest.lines.process.stdout, fcntl.F_SETPIPE_SZ, PAGE)
        guest.tell("read", 0, pages)
        require(guest.lines.next() == str(page_sum(expected[:PAGE])), "the first page is wrong")
        os.kill(server_of(pager), signal.SIGKILL)
        require(guest.sums(1) < pages - 1, "the guest has read pages that nobody served")
        guest.ends(-signal.SIGKILL)
        pager.ends(70)
