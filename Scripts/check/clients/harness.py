"""What the checks of clients.py share: the program, machines in processes of their own, files of memory."""
import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

from checks import Skip, Wrong, check, require  # noqa: F401
from memory import PAGE, Memory, Userfaultfd

# How long anything may take, in seconds: the machine that runs the checks may be slow.
LIMIT = 60
REPO = Path(__file__).resolve().parents[3]


def program():
    return os.environ["UFFD_PAGER"]


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def content(count):
    """What page a memory file has where: a pattern that differs in every page."""
    return random.Random(count).randbytes(count)


def memory_file(directory, count, begin=b""):
    path = directory / "memory"
    path.write_bytes(begin + content(count)[len(begin):])
    return path


def compile_c(program, *arguments):
    """Builds a client, from sources of this repository."""
    flags = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2")
    subprocess.run(["cc", *flags, "-o", program, *arguments], check=True, cwd=REPO)


class Logged:
    """A program whose output is in a file."""

    def output(self):
        # Not by seeking: the program writes where the file that it shares with this process stands.
        file = self.log.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def says(self, text, times=1):
        """Waits until the log has a text so often."""
        end = time.monotonic() + LIMIT
        while self.output().count(text) < times:
            require(time.monotonic() < end, f"the log does not say '{text}': {self.output()[-500:]}")
            self.may_say_more(text, times)
            time.sleep(0.01)

    def may_say_more(self, text, times):
        """Fails if the program has ended without saying it."""


class Pager(Logged):
    """The program under test, until its with statement ends."""

    def __init__(self, *arguments, prefix=(), log=None, pass_fds=()):
        self.log = open(log, "w+") if log else tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*prefix, program(), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT, pass_fds=pass_fds)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise Wrong(f"it does not end at SIGTERM: {self.output()[-500:]}") from None
        if kind is not None:
            print(self.output()[-2000:])
        self.log.close()

    def may_say_more(self, text, times):
        require(self.process.poll() is None or self.output().count(text) >= times,
                f"it ended with {self.process.poll()} and does not say '{text}': {self.output()[-500:]}")

    def ends(self, code=0):
        try:
            found = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Wrong(f"it does not end: {self.output()[-500:]}") from None
        require(found == code, f"exit code {found} in place of {code}: {self.output()[-500:]}")


class Machine:
    """A process that runs a function, which is given the end of a socket to this one."""

    def __init__(self, function, *arguments):
        self.socket, theirs = socket.socketpair()
        self.process = os.fork()
        if self.process == 0:
            code = 99
            try:
                self.socket.close()
                function(theirs, *arguments)
                code = 0
            except BaseException:  # pylint: disable=broad-except
                traceback.print_exc()
            finally:
                os._exit(code)
        theirs.close()
        self.status = None

    def word(self, limit=LIMIT):
        """What the process says next; empty if it has ended."""
        ready, _, _ = select.select([self.socket], [], [], limit)
        require(ready, "the machine hangs")
        return self.socket.recv(4096)

    def tell(self, word=b"."):
        # One that was killed meanwhile hears nothing; how it has ended is what is asked next.
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(word)

    def end(self, limit=LIMIT):
        """Waits for the end: the exit code, or the signal as a negative number."""
        if self.status is None:
            end = time.monotonic() + limit
            while True:
                found, status = os.waitpid(self.process, os.WNOHANG)
                if found:
                    self.status = os.waitstatus_to_exitcode(status)
                    break
                if time.monotonic() > end:
                    self.kill()
                    raise Wrong("the machine does not end")
                time.sleep(0.005)
        return self.status

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        if self.status is None:
            _, status = os.waitpid(self.process, 0)
            self.status = os.waitstatus_to_exitcode(status)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.status is None:
            self.kill()
        self.socket.close()


class Lines:
    """A program that is told lines, and answers with lines."""

    def __init__(self, arguments):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, bufsize=0)
        self.rest = b""

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def next(self):
        """The next line; empty if the program has ended."""
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
            require(ready, "the program hangs")
            more = self.process.stdout.read(4096)
            if not more:
                return ""
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()

    def errors(self):
        return os.pread(self.log.fileno(), 4096, 0).decode(errors="replace")

    def end(self):
        """Closes its input, and waits for its end: the exit code, or the signal as a negative number."""
        self.process.stdin.close()
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Wrong("the program does not end") from None

    def close(self):
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.log):
            file.close()


def expect_end(machine, code=0):
    require(machine.end() == code, f"the machine ended with {machine.status} in place of {code}")


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + LIMIT
    while True:
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            require(time.monotonic() < end, "nobody listens")
            time.sleep(0.01)


def halts(process):
    """Stops all threads of a process."""
    os.kill(process, signal.SIGSTOP)
    tasks = Path(f"/proc/{process}/task")
    becomes(lambda: {(task / "stat").read_text().rsplit(")", 1)[1].split()[0] for task in tasks.iterdir()}, {"T"},
            "the state of the process' threads")


def becomes(value, expected, what):
    """Waits until a function returns what is expected: a client goes on before its pager has counted its page."""
    end = time.monotonic() + LIMIT
    while (found := value()) != expected:
        require(time.monotonic() < end, f"{what} is {found} in place of {expected}")
        time.sleep(0.01)


def children(process):
    """The children of a process; none if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as file:
            return [int(number) for number in file.read().split()]
    return []


def server_of(pager):
    """The process that serves: the guard's child."""
    return children(pager.process.pid)[0]


def descriptors_of(pager):
    """How many descriptors the program has: its server, and its guard."""
    return [len(os.listdir(f"/proc/{process}/fd")) for process in (server_of(pager), pager.process.pid)]


def no_more_descriptors(pager, before):
    end = time.monotonic() + LIMIT
    while any(now > then for now, then in zip(descriptors_of(pager), before)):
        require(time.monotonic() < end, f"descriptors are left: {descriptors_of(pager)} after {before}")
        time.sleep(0.01)


def firecracker_json(*regions, page_size="both", **extra):
    """The message for (memory, offset) pairs."""
    names = {"both": ("page_size", "page_size_kib"), "new": ("page_size",), "old": ("page_size_kib",), "none": ()}
    return json.dumps([
        {"base_host_virt_addr": memory.start, "size": memory.count, "offset": offset}
        | {name: memory.page for name in names[page_size]} | extra
        for memory, offset in regions]).encode()


def registered(count, huge=False):
    memory, uffd = Memory(count, huge=huge), Userfaultfd()
    uffd.register(memory)
    return memory, uffd


def compare(memory, expected, offset=0, step=PAGE):
    """Reads the first bytes of every page."""
    for place in range(0, memory.count, step):
        found = memory.read(place, 16)
        require(found == expected[offset + place:offset + place + 16], f"wrong bytes at {place}: {found!r}")
