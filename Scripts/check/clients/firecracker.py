"""A simulator of Firecracker against uffd-pager firecracker: what a handler must get right."""
import contextlib
import os
import signal
import socket
import threading
import time

from harness import (LIMIT, Machine, Pager, Skip, check, compare, connect, descriptors_of, expect_end,
                     firecracker_json, folder, memory_file, no_more_descriptors, registered, require,
                     server_of)
from memory import HUGE, PAGE, Memory

SIZE = 64 * PAGE


@contextlib.contextmanager
def serving(*options, size=SIZE, prefix=(), begin=b""):
    """The program, its socket, and what its memory file holds."""
    with folder() as directory:
        path, memory = directory / "socket", memory_file(directory, size, begin)
        with Pager("firecracker", "--socket", path, "--memory", memory, *options, prefix=prefix) as pager:
            pager.says("listening")
            pager.folder = directory
            yield pager, path, memory.read_bytes()


def hand_over(path, message, descriptors, pieces=1):
    """Sends a message in pieces, the descriptors with the first; the connection stays open, as Firecracker's does."""
    connection = connect(path)
    step = -(-len(message) // pieces)
    for begin in range(0, len(message), step):
        socket.send_fds(connection, [message[begin:begin + step]], descriptors if begin == 0 else [])
        if pieces > 1:
            time.sleep(0.005)  # So that the pieces are read one by one; nothing depends on it.
    return connection


def machine_that_reads(end, path, expected, page_size="both", pieces=1, further=0, extra=None, huge=False):
    memory, uffd = registered(SIZE if not huge else 2 * HUGE, huge)
    files = [os.memfd_create("further") for _ in range(further)]
    message = firecracker_json((memory, 0), page_size=page_size, **(extra or {}))
    connection = hand_over(path, message, [uffd.number, *files], pieces)
    compare(memory, expected)
    end.sendall(b"r")
    end.recv(1)
    connection.close()


def serve_one(path, expected, **options):
    with Machine(machine_that_reads, path, expected) if not options else Machine(
            lambda end: machine_that_reads(end, path, expected, **options)) as machine:
        require(machine.word() == b"r", "the machine could not read")
        machine.tell()
        expect_end(machine)


@check
def firecracker_page_size_in_every_version():
    with serving() as (_, path, expected):
        for page_size in ("both", "new", "old", "none"):
            serve_one(path, expected, page_size=page_size)


@check
def firecracker_unknown_members():
    with serving() as (_, path, expected):
        serve_one(path, expected, extra={"gpa_start": 0, "is_guest_memfd": False, "more": {"a": ["]", None, 1.5]}})


@check
def firecracker_surplus_descriptors():
    with serving() as (pager, path, expected):
        serve_one(path, expected)
        pager.says(": ended ")
        before = descriptors_of(pager)
        for further in (1, 2, 20):
            serve_one(path, expected, further=further)
        pager.says(": ended ", 4)
        no_more_descriptors(pager, before)


@check
def firecracker_without_descriptor():
    with serving() as (pager, path, expected):
        connection = hand_over(path, firecracker_json((Memory(SIZE), 0)), [])
        require(connection.recv(1) == b"", "the connection stays open")
        pager.says("no userfaultfd")
        serve_one(path, expected)


@check
def firecracker_message_in_pieces():
    with serving() as (_, path, expected):
        serve_one(path, expected, pieces=40)
        serve_one(path, expected, extra={"padding": "x" * 30000})


@check
def firecracker_nothing_yet_and_end_of_stream():
    with serving() as (pager, path, expected):
        late = connect(path)
        connect(path).close()
        pager.says("closed the connection before")
        serve_one(path, expected)
        late.close()


@check
def firecracker_garbage():
    with serving() as (pager, path, expected):
        for message in (b"\0" * 64, b"{}", b"[]", b'[{"size":-1}]', b"[" * 1000 + b"]" * 1000, b"\xff"):
            connection = hand_over(path, message, [])
            require(connection.recv(1) == b"", "the connection stays open")
        pager.says("malformed", 6)
        serve_one(path, expected)


@check
def firecracker_regions_and_offsets():
    with serving() as (_, path, expected):
        def body(end):
            first, uffd = registered(SIZE // 4)
            second = Memory(SIZE // 2)
            uffd.register(second)
            connection = hand_over(path, firecracker_json((second, SIZE // 2), (first, 0)), [uffd.number])
            compare(first, expected)
            compare(second, expected, SIZE // 2)
            connection.close()
            end.sendall(b"r")

        with Machine(body) as machine:
            require(machine.word() == b"r", "the machine could not read")
            expect_end(machine)


@check
def firecracker_region_beyond_the_file():
    with serving(size=SIZE // 2) as (pager, path, _):
        with Machine(machine_that_reads, path, b"") as machine:
            require(machine.end() == -signal.SIGKILL, "a machine reads zeros beyond the end of its file")
        pager.says("cannot be served")


@check
def firecracker_balloon():
    """Memory that the balloon took is zeros afterwards, whether it was loaded or not, and whoever faults meanwhile."""
    with serving() as (_, path, expected):
        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(path, firecracker_json((memory, 0)), [uffd.number])
            compare_one(memory, 0, expected)
            memory.drop(0, 4 * PAGE)
            for page in range(4):
                require(memory.read(page * PAGE) == bytes(8), "a page that was dropped is not zeros")
            memory.write(0, b"again")
            memory.drop(0, PAGE)
            require(memory.read(0) == bytes(8), "a page that was written and dropped is not zeros")
            compare_one(memory, 5, expected)
            storm(memory, expected)
            end.sendall(b"r")

        with Machine(body) as machine:
            require(machine.word() == b"r", "the machine failed")
            expect_end(machine)


def compare_one(memory, page, expected):
    found = memory.read(page * PAGE, 16)
    require(found == expected[page * PAGE:page * PAGE + 16], f"wrong bytes in page {page}: {found!r}")


def storm(memory, expected):
    """Drops and faults at the same time: a page is its content or zeros, and zeros once it was dropped."""
    wrong = []

    def drops():
        for page in range(8, 56, 2):
            memory.drop(page * PAGE, PAGE)
            if memory.read(page * PAGE) != bytes(8):
                wrong.append(f"page {page} is not zeros after it was dropped")

    def reads():
        for page in range(8, 56):
            found = memory.read(page * PAGE, 16)
            if found not in (bytes(16), expected[page * PAGE:page * PAGE + 16]):
                wrong.append(f"page {page} has {found!r}")

    threads = [threading.Thread(target=work) for work in (drops, reads, reads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        require(not thread.is_alive(), "a thread hangs")
    require(not wrong, wrong[:1])


@check
def firecracker_huge_pages():
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("HugePages_Free"))
    if free < 2:
        raise Skip("needs 2 free huge pages: sysctl vm.nr_hugepages=8")
    with serving(size=2 * HUGE) as (_, path, expected):
        serve_one(path, expected, huge=True)


@check
def firecracker_peer_dies():
    with serving() as (pager, path, expected):
        for _ in range(3):
            with Machine(machine_that_reads, path, expected) as machine:
                require(machine.word() == b"r", "the machine could not read")
                machine.kill()
        pager.says(": ended ", 3)
        require("error" not in pager.output(), f"the end of a peer is an error: {pager.output()}")
        serve_one(path, expected)


@check
def firecracker_refuses_other_users():
    if os.geteuid() != 0:
        raise Skip("needs root")
    with serving("--allow-user", "12345") as (pager, path, _):
        connection = connect(path)
        require(connection.recv(1) == b"", "a stranger is not refused")
        pager.says("not allowed")


@check
def firecracker_lost_memory():
    """A page that cannot be read is SIGBUS for who touches it, or the end of the machine."""
    for policy, ending in (("poison", -signal.SIGBUS), ("kill", -signal.SIGKILL)):
        with serving("--on-failure", policy) as (pager, path, _):
            # The file is cut after the program has looked at it.
            def body(end):
                memory, uffd = registered(SIZE)
                hand_over(path, firecracker_json((memory, 0)), [uffd.number])
                end.sendall(b"c")
                end.recv(1)
                memory.read(SIZE - PAGE)

            with Machine(body) as machine:
                require(machine.word() == b"c", "the machine failed")
                pager.says("serving")
                os.truncate(pager.folder / "memory", PAGE)
                machine.tell()
                require(machine.end() == ending, f"{policy}: the machine ended with {machine.status}")
            # Its failure is in the exit code.
            pager.process.terminate()
            pager.ends(1)


@check
def firecracker_drain():
    """At SIGTERM the rest is loaded, and the machine goes on alone."""
    with serving() as (pager, path, expected):
        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(path, firecracker_json((memory, 0)), [uffd.number])
            compare_one(memory, 0, expected)
            end.sendall(b"r")
            end.recv(1)
            compare(memory, expected)

        with Machine(body) as machine:
            require(machine.word() == b"r", "the machine failed")
            pager.process.terminate()
            pager.ends(0)
            machine.tell()
            expect_end(machine)


@check
def firecracker_once():
    with serving("--once") as (pager, path, expected):
        serve_one(path, expected)
        pager.ends(0)
        require(not path.exists(), "the socket is left")


@check
def firecracker_thousand_connections():
    with serving() as (pager, path, expected):
        serve_one(path, expected)
        pager.says(": ended ")
        before = descriptors_of(pager)
        for _ in range(1000):
            connect(path).close()
        pager.says("closed the connection before", 1000)
        no_more_descriptors(pager, before)
        serve_one(path, expected)


@check
def firecracker_handler_killed():
    """When the handler dies, the machine dies too: it neither hangs nor reads zeros."""
    with serving() as (pager, path, expected):
        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(path, firecracker_json((memory, 0)), [uffd.number])
            compare_one(memory, 0, expected)
            end.sendall(b"r")
            end.recv(1)
            compare(memory, expected)

        with Machine(body) as machine:
            require(machine.word() == b"r", "the machine failed")
            os.kill(server_of(pager), signal.SIGKILL)
            machine.tell()
            require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
        pager.ends(70)


def resident(process):
    """The memory of a process, in bytes."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS"))


@check
def firecracker_removals_without_rest():
    """One machine drops its memory all the time: another is served, and the server does not grow."""
    with serving() as (pager, path, expected):
        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(path, firecracker_json((memory, 0)), [uffd.number])
            compare_one(memory, 0, expected)
            end.sendall(b"r")
            end.setblocking(False)
            count = 0
            while True:
                for page in range(64):
                    memory.drop(page * PAGE, PAGE)
                    memory.write(page * PAGE, b"again")
                count += 64
                if count == 4096:
                    end.sendall(b"w")
                with contextlib.suppress(BlockingIOError):
                    end.recv(1)
                    return

        with Machine(body) as machine:
            require(machine.word() == b"r", "the machine failed")
            require(machine.word() == b"w", "the machine hangs")
            before = resident(server_of(pager))
            for _ in range(3):
                serve_one(path, expected)
            machine.tell()
            expect_end(machine)
            grown = resident(server_of(pager)) - before
            require(grown < 64 << 20, f"the server has grown by {grown >> 20} MiB")


@check
def firecracker_many_machines():
    """Machines that start at the same time, from one file."""
    with serving() as (pager, path, expected), contextlib.ExitStack() as stack:
        machines = [stack.enter_context(Machine(machine_that_reads, path, expected)) for _ in range(32)]
        for machine in machines:
            require(machine.word() == b"r", "a machine could not read")
        for machine in machines:
            machine.tell()
        for machine in machines:
            expect_end(machine)
        pager.says(": ended ", 32)
