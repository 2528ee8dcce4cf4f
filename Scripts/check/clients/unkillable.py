"""Clients that uffd-pager may not kill: they are another user's, and it does not have CAP_KILL."""
import contextlib
import os
import signal
import socket

from access import STRANGER
from arrival import descriptors
from firecracker import SIZE, hand_over
from harness import (Machine, Pager, Skip, becomes, check, connect, firecracker_json, folder, halts, memory_file, registered,
                     require, server_of)
from pause import waits
from serve import ctl
from successor import late_ends, state_of
from told import stops_with, strays


@contextlib.contextmanager
def of_a_stranger(command, *options):
    """A program of a user who may kill nobody here."""
    if os.geteuid() != 0:
        raise Skip("needs root")
    prefix = ("setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups")
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        os.chown(directory, STRANGER, STRANGER)
        arguments = ("--socket", directory / "m", "--memory", memory) if command == "firecracker" else (
            "--control", directory / "control")
        with Pager(command, *arguments, *options, prefix=prefix) as pager:
            pager.says("listening" if command == "firecracker" else "ready")
            yield pager, directory


def waits_for_ever(end, path, message):
    memory, uffd = registered(SIZE)
    hand_over(path, message(memory), [uffd.number])
    end.sendall(b"s")
    memory.read(0)


@check
def told_of_clients_that_cannot_be_killed():
    """The log does not say that they are killed."""
    lives = "and cannot be killed, since it is another user's"
    with of_a_stranger("firecracker") as (pager, directory):
        with Machine(waits_for_ever, directory / "m", lambda memory: b"{}") as machine:
            require(machine.word() == b"s", "the machine failed")
            pager.says(f"error: a client cannot be served, {lives}")
        with Machine(waits_for_ever, directory / "m", lambda memory: firecracker_json((memory, 1 << 40))) as machine:
            require(machine.word() == b"s", "the machine failed")
            pager.says(f"error: a client cannot be served, {lives}", 2)
        stops_with(pager, 1)
    with of_a_stranger("serve") as (pager, directory):
        control = directory / "control"
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
        ctl(control, "pause", "m")
        with Machine(waits_for_ever, directory / "m", lambda memory: firecracker_json((memory, 0))) as machine:
            waits(machine)
            pager.says("it cannot be killed if its memory is lost")
            text = ctl(control, "remove", "m", "--ending", "kill", code=1)
            require("was to be killed, and cannot be killed" in text or lives in text, text)
            require(machine.end() == -signal.SIGBUS, f"the machine ended with {machine.status}")
        stops_with(pager, 1)


def sends_when_told(end, path, message):
    memory, uffd = registered(SIZE)
    connection = connect(path)
    end.sendall(b"c")
    end.recv(1)
    socket.send_fds(connection, [message(memory)], [uffd.number])
    end.sendall(b"s")
    memory.read(0)


@check
def told_of_arrivals_that_cannot_be_killed():
    """The server dies before it has read what its client has sent."""
    with of_a_stranger("firecracker") as (pager, directory):
        server, before = server_of(pager), descriptors(pager.process.pid)
        with Machine(sends_when_told, directory / "m", lambda memory: firecracker_json((memory, 0))) as machine:
            require(machine.word() == b"c", "the machine failed")
            becomes(lambda: descriptors(pager.process.pid) > before, True, "whether the machine has arrived")
            halts(server)
            machine.tell()
            require(machine.word() == b"s", "the machine failed")
            os.kill(server, signal.SIGKILL)
            pager.ends(70)
            text = pager.output()
            require("is to be killed, and cannot be killed" in text, text)


def memories_of(process):
    """How many userfaultfds a process has."""
    found = 0
    for number in os.listdir(f"/proc/{process}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += "userfaultfd" in os.readlink(f"/proc/{process}/fd/{number}")
    return found


@check
def told_before_memory_is_let_go():
    """The server has the memory of a client that it kills until its process has ended."""
    with folder() as directory:
        arguments = ("--socket", directory / "m", "--memory", memory_file(directory, SIZE))
        with Pager("firecracker", *arguments) as pager:
            pager.says("listening")
            server = server_of(pager)
            with Machine(sends_when_told, directory / "m", lambda memory: b"{}") as machine:
                require(machine.word() == b"c", "the machine failed")
                with late_ends([machine]):
                    machine.tell()
                    pager.says("a client cannot be served, and is killed")
                    becomes(lambda: state_of(machine.process), "t", "the state of a client that is killed")
                    require(memories_of(server) == 1, "the memory is let go")
            becomes(lambda: memories_of(server), 0, "how many memories the server has")
            stops_with(pager, 1)


@check
def told_of_clients_that_cannot_be_killed_at_strays():
    """One that touches memory outside its regions gets a signal: it would wait for ever."""
    with of_a_stranger("firecracker", "--on-failure", "kill") as (pager, directory):
        with Machine(strays, directory / "m") as machine:
            require(machine.end() == -signal.SIGBUS, f"the machine ended with {machine.status}")
        pager.says("outside its regions")
