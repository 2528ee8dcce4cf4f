"""Servers of uffd-pager that are killed, and their successors: under --supervise, and with a stand-in for systemd."""
import contextlib
import json
import os
import signal
import struct
import threading
import time

from firecracker import SIZE, hand_over, machine_that_reads
from handoff import handoff_message
from harness import (LIMIT, Machine, Pager, becomes, check, children, content, expect_end, firecracker_json, folder,
                     memory_file, registered, require)
from manager import Manager
from memory import FEATURES_SHARED, MADV_REMOVE, MODE_MINOR, MODE_MISSING, PAGE, Memory, Userfaultfd
from serve import ctl

ROUNDS = 20
LARGE = 512 << 20
THREADS = 4
WRITTEN = b"written!" * (PAGE // 8)


def keeper_of(pager):
    return children(pager.process.pid)[0]


def next_server(parent, last=None):
    """The child of a keeper or a guard, once it is another than the last one."""
    end = time.monotonic() + LIMIT
    while not (found := [child for child in children(parent) if child != last]):
        require(time.monotonic() < end, "there is no successor")
        time.sleep(0.002)
    return found[0]


def kill(process):
    os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def supervised(*options, size=SIZE):
    with folder() as directory:
        control = directory / "control"
        memory_file(directory, size)
        with Pager("serve", "--control", control, "--supervise", *options) as pager:
            pager.says("ready")
            ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
            yield pager, directory, control


def numbered_page(number):
    return struct.pack("<Q", number + 1) * (PAGE // 8)


def large_file(directory, size=LARGE):
    path = directory / "large.mem"
    with open(path, "wb") as file:
        for number in range(size // PAGE):
            file.write(numbered_page(number))
    return path


class PrivateMemory:
    """A Firecracker's: pages that it has dropped are zeros."""

    def __init__(self, path, size):
        self.memory, self.uffd = registered(size)
        self.connection = hand_over(path, firecracker_json((self.memory, 0)), [self.uffd.number])

    def change(self, number):
        """Writes or drops some of the pages that were read."""
        if number % 64 < THREADS:
            self.memory.write(number * PAGE, WRITTEN)
        elif number % 64 < 2 * THREADS:
            self.memory.drop(number * PAGE, PAGE)

    @staticmethod
    def changed(number):
        """What a page is after that."""
        return WRITTEN if number % 64 < THREADS else bytes(PAGE) if number % 64 < 2 * THREADS else numbered_page(number)


class SharedMemory:
    """A client's with a memory file: what it drops from its map is as it was, what it drops from the file is the source's."""

    def __init__(self, path, size):
        self.file = os.memfd_create("pager-state")
        os.truncate(self.file, size)
        self.memory, self.uffd = Memory(size, file=self.file), Userfaultfd(FEATURES_SHARED)
        self.uffd.register(self.memory, MODE_MISSING | MODE_MINOR)
        message = handoff_message([(self.memory.start, size, 0)], flags=3)
        self.connection = hand_over(path, message, [self.uffd.number, self.file])
        reply = self.connection.recv(4096)
        require(reply[8:12] == bytes(4), f"the reply is {reply!r}")

    def change(self, number):
        kind = number % 64 // THREADS
        if kind in (0, 1, 2):
            self.memory.write(number * PAGE, WRITTEN)
        if kind in (1, 3):
            self.memory.drop(number * PAGE, PAGE)
        if kind == 2:
            self.memory.drop(number * PAGE, PAGE, MADV_REMOVE)

    @staticmethod
    def changed(number):
        return WRITTEN if number % 64 < 2 * THREADS else numbered_page(number)


def machine_that_checks(end, path, rounds, size=LARGE, kind=PrivateMemory):
    """Threads read all of a large memory; some pages are written, some are dropped.

    It says a word each time that a further part is read, and whether everything was right at the end."""
    client = kind(path, size)
    pages = size // PAGE
    done = [0] * THREADS
    wrong = []

    def look(number, expected):
        found = client.memory.read(number * PAGE, PAGE)
        if found != expected:
            wrong.append(f"page {number} begins with {found[:16]!r}")

    def read(part):
        for number in range(part, pages, THREADS):
            look(number, numbered_page(number))
            client.change(number)
            if number % 64 < 4 * THREADS:
                look(number, client.changed(number))
            done[part] += 1

    threads = [threading.Thread(target=read, args=[part]) for part in range(THREADS)]
    for thread in threads:
        thread.start()
    for number in range(1, rounds + 1):
        while sum(done) < pages * number // (rounds + 1):
            time.sleep(0.001)
        end.sendall(b"k")
    for thread in threads:
        thread.join()
    for number in range(pages):
        look(number, client.changed(number))
    end.sendall(f"{len(wrong)} {wrong[:3]}".encode())
    end.recv(1)
    client.connection.close()


def check_large(machine, rounds, strike):
    """Strikes each time that the machine has read a further part."""
    seen = 0
    while seen < rounds:
        word = machine.word()
        require(word and word.strip(b"k") == b"", f"the machine says {word!r}")
        for _ in word:
            strike(seen)
            seen += 1
    word = machine.word()
    require(word.startswith(b"0 "), f"wrong pages: {word!r}")
    machine.tell()
    expect_end(machine)


def kills_under_a_keeper(kind, size, *options):
    with supervised("--max-restarts", 1000) as (pager, directory, control):
        ctl(control, "add", "large", "--socket", directory / "l", "--memory", large_file(directory, size), *options)
        keeper, servers = keeper_of(pager), []

        def strike(_):
            servers.append(next_server(keeper, servers[-1] if servers else None))
            kill(servers[-1])

        with Machine(machine_that_checks, directory / "l", ROUNDS, size, kind) as machine:
            check_large(machine, ROUNDS, strike)
        require(len(set(servers)) == ROUNDS, f"servers: {servers}")
        # The service goes on, with the machines that it had.
        pager.says("ready", 2)
        with Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
            require(machine.word() == b"r", "a machine that comes later could not read")
            machine.tell()
            expect_end(machine)
        pager.says(": ended ", 2)
        becomes(lambda: kept_files(keeper), 0, "the memory files in the keeper")


def kept_files(process):
    """How many memory files of clients a process has open."""
    names = [os.readlink(f"/proc/{process}/fd/{number}") for number in os.listdir(f"/proc/{process}/fd")]
    return sum(name.startswith("/memfd:pager-state") for name in names)


@check
def survive_kills_under_a_keeper():
    kills_under_a_keeper(PrivateMemory, LARGE)


@check
def survive_kills_with_a_memory_file():
    """Its client calls its file as ours are called, and is not served by it."""
    kills_under_a_keeper(SharedMemory, LARGE // 2, "--format", "handoff")


def kills_under_systemd(rounds, *options, kind=PrivateMemory, speaks="firecracker"):
    """Kills the server, or all of the service, as if memory had run out."""
    size = LARGE // 4
    with folder() as directory:
        control = directory / "control"
        path = large_file(directory, size)
        with Manager(directory, "serve", "--control", control, "--max-restarts", 1000, *options) as service:
            service.says("ready")
            for name in ("large", "paused"):
                ctl(control, "add", name, "--socket", directory / name, "--memory", path, "--format", speaks)
            ctl(control, "pause", "paused")
            last = None

            def strike(number):
                nonlocal last
                is_supervised = "--supervise" in options
                processes = [service.process]
                if is_supervised:
                    processes.append(next_server(processes[-1]))
                last = next_server(processes[-1], last)
                if number % 2:
                    for process in (*processes, last):
                        kill(process)
                    service.starts_again(-signal.SIGKILL)
                else:
                    kill(last)
                    if not is_supervised:
                        service.starts_again(75)

            with Machine(machine_that_checks, directory / "large", rounds, size, kind) as machine:
                check_large(machine, rounds, strike)
            service.says("ready", 2)
            service.forgets("client.")
            service.forgets("file.")
            require(json.loads(ctl(control, "show", "paused"))["state"] == "paused", "a machine is not paused any more")
            # An orderly end leaves nothing in the store but when it was started.
            service.stop()
            require(set(service.store) <= {"restarts"}, f"the store has {set(service.store)}")
            require(not (directory / "paused").exists(), "a socket is left")


@check
def survive_kills_under_systemd():
    kills_under_systemd(6, "--fd-store")


@check
def survive_kills_under_a_keeper_and_systemd():
    kills_under_systemd(4, "--fd-store", "--supervise")


@check
def survive_kills_with_a_memory_file_under_systemd():
    kills_under_systemd(6, "--fd-store", kind=SharedMemory, speaks="handoff")
