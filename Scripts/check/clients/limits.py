"""Peers that ask for too much or leave half way: others are served, and no machine waits for ever."""
import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import time

from firecracker import SIZE, compare_one, hand_over, machine_that_reads, serve_one
from firecracker import serving as serving_firecracker
from handoff import handoff_message
from harness import (LIMIT, Machine, Pager, becomes, check, connect, content, expect_end, firecracker_json, folder, memory_file,
                     program, registered, require, server_of)
from memory import FEATURES_SHARED, MODE_MINOR, MODE_MISSING, PAGE, Memory, Userfaultfd
from nbd import exporting
from pause import add, started, stopped
from serve import ask, ctl, serving, threads_of

LIBC = ctypes.CDLL(None)


@contextlib.contextmanager
def two_sockets(*prefix):
    """The program with the sockets a and b."""
    with serving(prefix=prefix) as (pager, directory, control):
        for name in ("a", "b"):
            ctl(control, "add", name, "--socket", directory / name, "--memory", directory / "memory")
        yield pager, directory


@check
def limits_half_messages_at_one_socket():
    """Connections with half a message and more descriptors than anybody needs leave room for others."""
    # Root may do without the hard limit; the server has given that up.
    with two_sockets("prlimit", "--nofile=1024:1024") as (pager, directory), contextlib.ExitStack() as stack:
        files = [os.memfd_create("further") for _ in range(4)]
        for _ in range(250):
            connection = stack.enter_context(contextlib.closing(connect(directory / "a")))
            socket.send_fds(connection, [b"[{"], files)
        pager.says("more than 64 connections", 250 - 64)
        for name in ("b", "a"):
            serve_one(directory / name, content(SIZE))
        for file in files:
            os.close(file)


@check
def limits_silent_connections_at_one_socket():
    with two_sockets() as (_, directory), contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(contextlib.closing(connect(directory / "a")))
        for name in ("b", "a"):
            serve_one(directory / name, content(SIZE))


@check
def limits_soft_limit_is_raised():
    with serving_firecracker(prefix=("prlimit", "--nofile=64:4096")) as (pager, _, _):
        with open(f"/proc/{server_of(pager)}/limits", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("Max open files"))
        require(line.split()[3:5] == ["4096", "4096"], line)


@check
def limits_waits_for_descriptors():
    """A machine for which there is no descriptor waits until there is one."""
    with serving_firecracker() as (pager, path, expected):
        serve_one(path, expected)
        pager.says(": ended ")
        server = server_of(pager)
        with open(f"/proc/{server}/limits", encoding="ascii") as file:
            before = next(line for line in file if line.startswith("Max open files")).split()[3:5]
        taken = {int(name) for name in os.listdir(f"/proc/{server}/fd")}
        most = next(number for number in range(1000) if number not in taken) + 3
        subprocess.run(["prlimit", f"--pid={server}", f"--nofile={most}:{before[1]}"], check=True)
        with Machine(machine_that_reads, path, expected) as machine:
            pager.says("no client can be accepted")
            subprocess.run(["prlimit", f"--pid={server}", f"--nofile={before[0]}:{before[1]}"], check=True)
            require(machine.word() == b"r", "the machine could not read")
            machine.tell()
            expect_end(machine)


def stranded(path, message, closes=False):
    """A machine that has sent its descriptor with this message, and touches its memory: how it ends."""
    def body(_):
        memory, uffd = registered(SIZE)
        connection = hand_over(path, message(memory), [uffd.number])
        if closes:
            connection.close()
        memory.read(0)

    with Machine(body) as machine:
        return machine.end()


@check
def limits_no_machine_is_left_behind():
    """One whose descriptor has come, and that is not served, is killed: it would wait for its pages for ever."""
    def good(memory):
        return firecracker_json((memory, 0))

    with serving_firecracker() as (pager, path, expected):
        for message, closes, complaint in (
                (lambda memory: b"{}", False, "malformed"),
                (lambda memory: b"[]", False, "no region"),
                (lambda memory: good(memory)[:-1] + b" " * (2 << 20), False, "longer than"),
                (lambda memory: good(memory)[:20], True, "closed the connection"),
                (lambda memory: good(memory)[:20], False, "did not complete"),
                (lambda memory: firecracker_json((memory, 0), (Memory(SIZE), PAGE)), False, "same bytes")):
            end = stranded(path, message, closes)
            require(end == -signal.SIGKILL, f"{complaint}: the machine ended with {end}")
            pager.says(complaint)
        serve_one(path, expected)


@check
def limits_machines_that_come_at_the_end():
    """Those that wait at the socket when the server ends are served or killed."""
    with serving_firecracker() as (pager, path, expected), contextlib.ExitStack() as stack:
        server = server_of(pager)
        os.kill(server, signal.SIGSTOP)

        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(path, firecracker_json((memory, 0)), [uffd.number])
            end.sendall(b"c")
            compare_one(memory, 0, expected)

        machines = [stack.enter_context(Machine(body)) for _ in range(8)]
        for machine in machines:
            require(machine.word() == b"c", "a machine could not connect")
        pager.process.terminate()
        os.kill(server, signal.SIGTERM)
        os.kill(server, signal.SIGCONT)
        for machine in machines:
            require(machine.end() in (0, -signal.SIGKILL), f"a machine ended with {machine.status}")


@check
def limits_handoff_is_told():
    """A client whose regions are many times the source hears that."""
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        with Pager("handoff", "--socket", directory / "socket", "--memory", memory) as pager:
            pager.says("listening")
            for count, status in ((8, 0), (9, 1)):
                def body(end, count=count):
                    memory, uffd = registered(count * SIZE)
                    regions = [(memory.start + index * SIZE, SIZE, 0) for index in range(count)]
                    connection = hand_over(directory / "socket", handoff_message(regions), [uffd.number])
                    end.sendall(connection.recv(4096))

                with Machine(body) as machine:
                    reply = machine.word()
                    require(reply[:12] == struct.pack("<8sI", b"UFFDDONE", status), f"{count}: the reply is {reply}")
                    require((b"8 times" in reply) == bool(status), f"{count}: the reply is {reply}")
                    expect_end(machine)


@check
def limits_log_that_nobody_reads():
    """Machines are served while the log's reader does not read; what was dropped is told."""
    with folder() as directory:
        path, memory = directory / "socket", memory_file(directory, SIZE)
        with subprocess.Popen([program(), "firecracker", "--socket", path, "--memory", memory], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as pager:
            try:
                for _ in range(2000):
                    connect(path).close()
                serve_one(path, content(SIZE))
                text, end = b"", time.monotonic() + LIMIT
                while b"lines of the log were dropped count=" not in text:
                    require(time.monotonic() < end, f"nothing is told: {text[-300:]}")
                    # Something to log.
                    connect(path).close()
                    text += os.read(pager.stderr.fileno(), 1 << 20)
            finally:
                # Its server ends with it, which a signal that cannot be handed on would leave behind.
                pager.terminate()


@check
def limits_reports_of_one_client():
    """A client can cause as many failures as it likes: the log has the first ones."""
    with serving_firecracker() as (pager, path, _):
        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(path, firecracker_json((memory, 0)), [uffd.number])
            end.sendall(b"c")
            end.recv(1)
            _, pipe = os.pipe()
            for page in range(SIZE // PAGE):
                # The kernel reads the page, and gets EFAULT where a thread would get a signal.
                require(LIBC.write(pipe, ctypes.c_void_p(memory.start + page * PAGE), 1) == -1, "a lost page is there")

        with Machine(body) as machine:
            require(machine.word() == b"c", "the machine failed")
            pager.says("serving")
            os.truncate(pager.folder / "memory", 0)
            machine.tell()
            expect_end(machine)
        pager.says(": ended ")
        lines = pager.output().count("a page could not be loaded")
        require(0 < lines <= 20, f"one client fills {lines} lines of the log")


@check
def limits_adds_that_wait():
    """Machines whose server does not answer hold up no other request."""
    with folder() as where, exporting(where) as (uri, server), serving() as (pager, directory, control):
        add(control, directory, uri)
        before = len(threads_of(server_of(pager)))
        with stopped(server):
            adds = [started(control, "add", f"m{index}", "--socket", str(directory / f"m{index}"), "--memory", uri)
                    for index in range(os.cpu_count() + 2)]
            becomes(lambda: len(threads_of(server_of(pager))) >= before + len(adds), True, "that each has a thread")
            require(ask(control, "GET", "/v1/machines")[0] == 200, "no answer")
            require(all(request.poll() is None for request in adds), "the requests have waited for each other")
        for request in adds:
            request.communicate(timeout=LIMIT)


@check
def limits_memories_of_one_process():
    """A client that takes more than its share is told so, or killed, and others are served."""
    most = 3

    def body(end, path):
        replies, connections = [], []
        for _ in range(most + 1):
            memory, uffd = registered(SIZE)
            connections.append(hand_over(path, handoff_message([(memory.start, SIZE, 0)]), [uffd.number]))
            replies.append((connections[-1].recv(4096), memory, uffd))
        end.sendall(b"".join(reply[8:9] for reply, _, _ in replies) + replies[-1][0][16:])
        end.recv(1)

    def greedy(_, path, expected):
        kept = []
        for _ in range(most + 1):
            memory, uffd = registered(SIZE)
            kept.append((hand_over(path, firecracker_json((memory, 0)), [uffd.number]), uffd))
            compare_one(memory, 0, expected)

    with folder() as directory:
        path, memory = directory / "socket", memory_file(directory, SIZE)
        with Pager("handoff", "--socket", path, "--memory", memory, "--max-per-process", most) as pager:
            pager.says("listening")
            with Machine(body, path) as machine, Machine(body, path) as other:
                for one in (machine, other):
                    word = one.word()
                    require(word[:most + 1] == bytes(most) + b"\1" and b"3 memories of this process" in word, f"{word!r}")
                machine.tell()
                expect_end(machine)
    with serving_firecracker("--max-per-process", str(most)) as (pager, path, expected):
        with Machine(greedy, path, expected) as machine:
            expect_end(machine, -signal.SIGKILL)
        pager.says("3 memories of this process")
        serve_one(path, expected)


@check
def limits_memory_files_of_any_length():
    """A client's file may be nearly as long as the address space of the server: only what it has handed over counts."""
    length = 100 << 40

    def body(end, path, expected):
        file = os.memfd_create("long")
        os.truncate(file, length)
        memory, uffd = Memory(SIZE, file=file), Userfaultfd(FEATURES_SHARED)
        uffd.register(memory, MODE_MISSING | MODE_MINOR)
        connection = hand_over(path, handoff_message([(memory.start, SIZE, 0)], flags=3), [uffd.number, file])
        reply = connection.recv(4096)
        require(reply[8:12] == bytes(4), f"the reply is {reply!r}")
        compare_one(memory, 0, expected)
        end.sendall(b"r")
        end.recv(1)

    for options in ((), ("--supervise",)):
        with folder() as directory, contextlib.ExitStack() as stack:
            path, memory = directory / "socket", memory_file(directory, SIZE)
            with Pager("handoff", "--socket", path, "--memory", memory, *options) as pager:
                pager.says("listening")
                machines = [stack.enter_context(Machine(body, path, content(SIZE))) for _ in range(3)]
                for machine in machines:
                    require(machine.word() == b"r", "a machine could not read")
                    machine.tell()
                    expect_end(machine)
