"""Successors of uffd-pager whose NBD server is away when they start, and what a server that has died has lost."""
import contextlib
import ctypes
import os
import signal

from firecracker import SIZE, hand_over, machine_that_reads
from harness import (Machine, Pager, Wrong, check, content, expect_end, firecracker_json, folder, memory_file, registered,
                     require)
from manager import Manager
from memory import LIBC, PAGE
from nbd import exporting, skip_unless_listening, skip_without_nbd
from serve import ctl
from successor import half_read, reads_the_rest
from survive import keeper_of, kill, next_server
from told import first_page, stops_with

GONE = "the NBD server is gone"


@contextlib.contextmanager
def losing_both(directory, *options):
    """A pager and half a machine of it, after their NBD server has died, and the process that serves."""
    with contextlib.ExitStack() as until_the_end:
        with exporting(directory) as (uri, server):
            pager = until_the_end.enter_context(Pager(
                "firecracker", "--socket", directory / "m", "--memory", uri, "--supervise", *options))
            skip_unless_listening(pager)
            machine = until_the_end.enter_context(half_read(directory / "m"))
            # It would wait until its clients have gone.
            server.kill()
        (directory / "export").unlink()
        pager.says(GONE)
        kill(next_server(keeper_of(pager)))
        pager.says("listening", 2)
        pager.says(GONE, 2)
        yield pager, machine


@check
def survive_without_the_cache():
    """What is kept of a server's memory is an extra: its folder is removed, and comes back."""
    with folder() as directory, exporting(directory) as (uri, _):
        cache = directory / "cache"
        cache.mkdir()
        keeping = ("--cache", f"{cache}:64M", "--cache-revision", "1")
        with Pager("firecracker", "--socket", directory / "m", "--memory", uri, "--supervise", *keeping) as pager:
            skip_unless_listening(pager)
            with half_read(directory / "m") as machine:
                cache.rename(directory / "away")
                kill(next_server(keeper_of(pager)))
                pager.says("listening", 2)
                pager.says("goes on without the cache")
                (directory / "away").rename(cache)
                kill(next_server(keeper_of(pager)))
                pager.says("listening", 3)
                reads_the_rest(machine)
            stops_with(pager, 0)


@check
def survive_while_the_nbd_server_is_away():
    """Machines that are there wait for their pages, and one that comes waits too."""
    with folder() as directory, losing_both(directory) as (pager, machine):
        machine.tell()
        keeper = keeper_of(pager)
        # Another one, and this one dies before it has seen the server.
        kill(next_server(keeper))
        pager.says("listening", 3)
        with Machine(machine_that_reads, directory / "m", content(SIZE)) as later:
            pager.says(GONE, 3)
            with exporting(directory):
                for one in (machine, later):
                    require(one.word() == b"r", "a machine could not read")
                    one.tell()
                    expect_end(one)
                pager.says(": ended ", 2)
                require("is killed" not in pager.output() and "signal=0" not in pager.output(), pager.output())
                stops_with(pager, 0)


@check
def survive_many_machines_while_their_nbd_server_is_away():
    """Others are served meanwhile, and the control socket answers; a machine without clients is not lost."""
    with folder() as directory, contextlib.ExitStack() as until_the_end:
        control = directory / "control"
        with exporting(directory) as (uri, server):
            pager = until_the_end.enter_context(Pager("serve", "--control", control, "--cache-memory", "1M", "--supervise"))
            pager.says("ready")
            add = ("--memory", uri, "--cache-revision", "1")
            try:
                ctl(control, "add", "m", "--socket", directory / "m", *add)
            except Wrong as refusal:
                skip_without_nbd(str(refusal))
                raise
            ctl(control, "add", "idle", "--socket", directory / "idle", *add[:2])
            ctl(control, "add", "file", "--socket", directory / "file", "--memory", directory / "memory")
            machine, other = (until_the_end.enter_context(half_read(directory / name)) for name in ("m", "file"))
            server.kill()
        (directory / "export").unlink()
        pager.says(GONE)
        kill(next_server(keeper_of(pager)))
        pager.says("ready", 2)
        other.tell()
        require(other.word() == b"r", "a machine whose memory is in a file could not read")
        other.tell()
        expect_end(other)
        require('"idle"' in ctl(control, "list"), "a machine is lost")
        machine.tell()
        with exporting(directory):
            require(machine.word() == b"r", "the machine could not read")
            machine.tell()
            expect_end(machine)
            with Machine(machine_that_reads, directory / "idle", content(SIZE)) as later:
                require(later.word() == b"r", "a machine that comes later could not read")
                later.tell()
                expect_end(later)
            pager.says(": ended ", 3)
            stops_with(pager, 0)


@check
def survive_the_whole_service_while_the_nbd_server_is_away():
    """The same with systemd's store, and without a keeper."""
    with folder() as directory, contextlib.ExitStack() as until_the_end:
        with exporting(directory) as (uri, server):
            service = until_the_end.enter_context(Manager(
                directory, "firecracker", "--socket", directory / "m", "--memory", uri, "--fd-store"))
            try:
                service.says("listening")
            except Wrong:
                skip_without_nbd(service.output())
                raise
            machine = until_the_end.enter_context(half_read(directory / "m"))
            server.kill()
        (directory / "export").unlink()
        service.says(GONE)
        kill(next_server(service.process))
        service.starts_again(75)
        service.says("listening", 2)
        machine.tell()
        service.says(GONE, 2)
        with exporting(directory):
            require(machine.word() == b"r", "the machine could not read")
            machine.tell()
            expect_end(machine)
            service.says(": ended ")
            service.stop()


@check
def survive_no_longer_than_the_retries_allow():
    """Pages that are touched then are as those of a server that is not killed."""
    for failure, end in (("poison", signal.SIGBUS), ("kill", signal.SIGKILL)):
        with folder() as directory, losing_both(directory, "--retries", 3, "--on-failure", failure) as (pager, machine):
            machine.tell()
            require(machine.end() == -end, f"{failure}: the machine ended with {machine.status}")
            pager.says(": ended ")
            stops_with(pager, 1)


@check
def survive_no_other_memory():
    with folder() as directory, losing_both(directory) as (pager, machine):
        with exporting(directory, size=SIZE + PAGE):
            require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
            pager.says("its memory is another one now")
            stops_with(pager, 1)


def loses_a_page(path, end):
    """A machine that asks the kernel for a page that is lost, which kills nobody, and ends when it is told to."""
    memory, uffd = registered(SIZE)
    hand_over(path, firecracker_json((memory, 0)), [uffd.number])
    memory.read(0)
    end.sendall(b"r")
    end.recv(1)
    LIBC.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    place = os.memfd_create("copy")
    end.sendall(b"l" if LIBC.write(place, memory.start + SIZE - PAGE, 8) < 0 else b"?")
    end.recv(1)


@contextlib.contextmanager
def losing(directory, body, *options):
    """A pager, and a machine of it that has its first page, and misses one whose memory file has been cut."""
    path, memory = directory / "m", memory_file(directory, SIZE)
    arguments = ("firecracker", "--socket", path, "--memory", memory, *options)
    with (Manager(directory, *arguments) if "--fd-store" in options else Pager(*arguments)) as pager:
        pager.says("listening")
        with Machine(lambda end: body(path, end)) as machine:
            require(machine.word() == b"r", "the machine failed")
            os.truncate(memory, PAGE)
            machine.tell()
            pager.says("a page could not be loaded")
            yield pager, machine
        pager.says(": ended ")


@check
def survive_with_the_exit_code_of_a_machine_that_has_ended():
    with folder() as directory:
        with losing(directory, first_page, "--supervise") as (pager, machine):
            expect_end(machine, -signal.SIGBUS)
            pager.says(": ended ")
            (directory / "memory").write_bytes(content(SIZE))
            kill(next_server(keeper_of(pager)))
            pager.says("listening", 2)
            stops_with(pager, 1)


@check
def survive_with_the_exit_code_of_a_machine_that_goes_on():
    """Under a keeper, and with systemd's store."""
    for option in ("--supervise", "--fd-store"):
        with folder() as directory, losing(directory, loses_a_page, option) as (pager, machine):
            require(machine.word() == b"l", "the page is there")
            (directory / "memory").write_bytes(content(SIZE))
            if option == "--supervise":
                kill(next_server(keeper_of(pager)))
            else:
                kill(next_server(pager.process))
                pager.starts_again(75)
            pager.says("listening", 2)
            machine.tell()
            expect_end(machine)
            pager.says(": ended ")
            if option == "--supervise":
                stops_with(pager, 1)
                continue
            os.kill(pager.process, signal.SIGTERM)
            pager.ends(1)
            pager.forgets("failed")
