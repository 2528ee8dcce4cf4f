"""Clients that uffd-pager may not kill: they are another user's, and it does not have CAP_KILL."""
import contextlib
import os
import signal

from access import STRANGER
from firecracker import SIZE, hand_over
from harness import Machine, Pager, Skip, check, firecracker_json, folder, memory_file, registered, require
from pause import waits
from serve import ctl
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


@check
def told_of_clients_that_cannot_be_killed_at_strays():
    """One that touches memory outside its regions gets a signal: it would wait for ever."""
    with of_a_stranger("firecracker", "--on-failure", "kill") as (pager, directory):
        with Machine(strays, directory / "m") as machine:
            require(machine.end() == -signal.SIGBUS, f"the machine ended with {machine.status}")
        pager.says("outside its regions")
