"""Machines that are handing their memory over to uffd-pager at the moment when its server is killed."""
import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios

from firecracker import SIZE
from harness import (Machine, Pager, becomes, check, children, connect, expect_end, firecracker_json, folder, halts, memory_file,
                     registered, require)
from manager import Manager
from successor import half_read, reads_the_rest
from survive import kill


def machine_that_sends(end, path, when):
    """Connects, and sends its message in part, or all of it when it is told; then it touches its memory."""
    memory, uffd = registered(SIZE)
    message = firecracker_json((memory, 0))
    connection = connect(path)
    if when == "told":
        end.sendall(b"c")
        end.recv(1)
    else:
        message = message[:len(message) // 2]
    socket.send_fds(connection, [message], [uffd.number])
    if when == "now":
        becomes(lambda: unread(connection), 0, "what the server has not read")
    end.sendall(b"s")
    memory.read(0)


def unread(connection):
    """The bytes that a socket has sent and its peer has not taken."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def descriptors(process):
    return len(os.listdir(f"/proc/{process}/fd"))


@contextlib.contextmanager
def serving(*options):
    """The program, its socket, its guard and server, and a call that kills all that dies."""
    with folder() as directory:
        path, memory = directory / "m", memory_file(directory, SIZE)
        arguments = ("firecracker", "--socket", path, "--memory", memory, *options)
        if "--fd-store" not in options:
            with Pager(*arguments) as pager:
                pager.says("listening")
                server = children(pager.process.pid)[0]
                if "--supervise" in options:
                    server = children(server)[0]
                yield pager, path, (pager.process.pid, server), lambda: kill(server)
            return
        with Manager(directory, *arguments) as service:
            service.says("listening")
            server = children(service.process)[0]

            def die():
                service.drain()
                for process in (service.process, server):
                    kill(process)
                service.starts_again(-signal.SIGKILL)

            yield service, path, (service.process, server), die


def goes_on(pager, path, options):
    if options:
        pager.says("listening", 2)
        with half_read(path) as machine:
            reads_the_rest(machine)
    else:
        pager.ends(70)


@check
def survive_part_of_a_message():
    for options in ((), ("--supervise",), ("--fd-store",)):
        with serving(*options) as (pager, path, _, die), Machine(machine_that_sends, path, "now") as machine:
            require(machine.word() == b"s", "the machine failed")
            die()
            require(machine.end() == -signal.SIGKILL, f"{options}: the machine ended with {machine.status}")
            goes_on(pager, path, options)


@check
def survive_a_message_that_was_not_read():
    for options in ((), ("--supervise",), ("--fd-store",)):
        with serving(*options) as (pager, path, (guard, server), die):
            before = descriptors(guard)
            with Machine(machine_that_sends, path, "told") as machine:
                require(machine.word() == b"c", "the machine failed")
                becomes(lambda: descriptors(guard) > before, True, "whether the machine has arrived")
                halts(server)
                machine.tell()
                require(machine.word() == b"s", "the machine failed")
                die()
                require(machine.end() == -signal.SIGKILL, f"{options}: the machine ended with {machine.status}")
            goes_on(pager, path, options)


@check
def survive_a_connection_without_a_message():
    """Who has sent nothing is not killed: the connection ends."""
    for options in ((), ("--supervise",), ("--fd-store",)):
        with serving(*options) as (pager, path, (guard, _), die):
            before = descriptors(guard)

            def body(end, path=path):
                connection = connect(path)
                end.sendall(b"c")
                require(connection.recv(1) == b"", "the connection says something")

            with Machine(body) as machine:
                require(machine.word() == b"c", "the machine failed")
                becomes(lambda: descriptors(guard) > before, True, "whether the machine has arrived")
                die()
                expect_end(machine)
            goes_on(pager, path, options)
