"""Signals that come to a service of uffd-pager when its server or its keeper has just died."""
import os
import signal

from firecracker import SIZE
from harness import Pager, check, expect_end, folder, memory_file, require
from manager import Manager
from successor import half_read, reads_the_rest
from survive import keeper_of, kill, next_server, supervised


def loads_what_is_left(pager, machine):
    pager.ends(0)
    # Nobody serves it any more: nothing is missing.
    reads_the_rest(machine)


@check
def survive_a_stop_that_comes_with_a_kill():
    with supervised() as (pager, directory, _), half_read(directory / "m") as machine:
        keeper = keeper_of(pager)
        os.kill(keeper, signal.SIGSTOP)
        kill(next_server(keeper))
        os.kill(keeper, signal.SIGTERM)
        os.kill(keeper, signal.SIGCONT)
        loads_what_is_left(pager, machine)
        require(not (directory / "m").exists(), "the socket is left")


@check
def survive_a_stop_before_the_next_start():
    with supervised() as (pager, directory, _), half_read(directory / "m") as machine:
        keeper, server = keeper_of(pager), None
        # The keeper waits longer each time.
        for number in range(1, 6):
            server = next_server(keeper, server)
            kill(server)
            pager.says("a successor is started", number)
        pager.process.terminate()
        loads_what_is_left(pager, machine)


@check
def survive_a_stop_while_a_successor_starts():
    for sent in (signal.SIGTERM, signal.SIGINT):
        with supervised() as (pager, directory, _), half_read(directory / "m") as machine:
            keeper = keeper_of(pager)
            server = next_server(keeper)
            kill(server)
            next_server(keeper, server)
            pager.process.send_signal(sent)
            loads_what_is_left(pager, machine)
    for options in ((), ("--supervise",)):
        with folder() as directory:
            memory = memory_file(directory, SIZE)
            with Manager(directory, "firecracker", "--socket", directory / "m", "--memory", memory, "--fd-store",
                         *options) as service:
                service.says("listening")
                with half_read(directory / "m") as machine:
                    server = next_server(service.process)
                    for process in [service.process, *([server, next_server(server)] if options else [])]:
                        kill(process)
                    if not options:
                        kill(server)
                    service.starts_again(-signal.SIGKILL)
                    next_server(service.process)
                    service.stop()
                    reads_the_rest(machine)


@check
def survive_a_reload_without_a_keeper():
    with supervised() as (pager, directory, _), half_read(directory / "m") as machine:
        kill(keeper_of(pager))
        pager.says("the keeper has died")
        pager.process.send_signal(signal.SIGHUP)
        pager.says("the server is not replaced")
        reads_the_rest(machine)
        with half_read(directory / "m") as other:
            reads_the_rest(other)
        pager.process.terminate()
        pager.ends(0)
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        with Manager(directory, "firecracker", "--socket", directory / "m", "--memory", memory, "--fd-store",
                     "--supervise", "--max-restarts", 0) as service:
            service.says("listening")
            with half_read(directory / "m") as machine:
                kill(next_server(service.process))
                service.says("the keeper has died")
                os.kill(service.process, signal.SIGHUP)
                service.starts_again(75)
                service.says("listening", 2)
                reads_the_rest(machine)
            service.stop()
