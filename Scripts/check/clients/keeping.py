"""What the processes that keep the clients of uffd-pager do when they have no room, or do not answer in time."""
import contextlib
import json
import os
import resource
import signal
import time

from firecracker import SIZE, serve_one
from harness import Machine, Pager, check, content, expect_end, folder, memory_file, require, server_of
from manager import Manager
from serve import ask
from successor import half_read, machine_in_two_steps, reads_the_rest, replaceable_program
from survive import keeper_of, kill, next_server, supervised

LIMIT_OF_FILES = 256
# More names than a variable of the environment may have: two for each machine.
MANY = 600
# More than a keeper can hand on with so many open files.
MACHINES = 36


@contextlib.contextmanager
def supervised_firecracker(prefix=()):
    with folder() as directory:
        arguments = ("firecracker", "--supervise", "--socket", directory / "m", "--memory", memory_file(directory, SIZE))
        with Pager(*arguments, prefix=prefix) as pager:
            pager.says("listening")
            yield pager, directory / "m"


@check
def survive_no_more_clients_than_can_be_handed_on():
    with supervised_firecracker(("prlimit", f"--nofile={LIMIT_OF_FILES}:{LIMIT_OF_FILES}")) as (pager, path):
        machines = [Machine(machine_in_two_steps, path, content(SIZE)) for _ in range(MACHINES)]
        served = [machine for machine in machines if machine.word() == b"h"]
        refused = [machine for machine in machines if machine not in served]
        require(served and refused, f"{len(served)} machines are served, {len(refused)} refused")
        for machine in refused:
            expect_end(machine, -signal.SIGKILL)
        kill(next_server(keeper_of(pager)))
        for machine in served:
            reads_the_rest(machine)


@check
def survive_an_answer_that_comes_late():
    with supervised_firecracker() as (pager, path):
        server = next_server(keeper_of(pager))
        os.kill(pager.process.pid, signal.SIGSTOP)
        stranded = Machine(machine_in_two_steps, path, content(SIZE))
        try:
            # Its descriptors lie in the guard's socket when the server dies.
            end = time.monotonic() + 5
            while time.monotonic() < end and not waits_for_an_answer(server):
                time.sleep(0.01)
            kill(server)
        finally:
            os.kill(pager.process.pid, signal.SIGCONT)
        pager.says("listening", 2)
        before = resource.prlimit(pager.process.pid, resource.RLIMIT_NOFILE)
        # The guard has no room: the next client must be told so, whatever was answered before.
        resource.prlimit(pager.process.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        expect_end(Machine(machine_in_two_steps, path, content(SIZE)), -signal.SIGKILL)
        resource.prlimit(pager.process.pid, resource.RLIMIT_NOFILE, before)
        with half_read(path) as machine:
            reads_the_rest(machine)
        expect_end(stranded, -signal.SIGKILL)


def waits_for_an_answer(server):
    """Whether a thread of the server sleeps in recvmsg."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{server}/task"):
            with open(f"/proc/{server}/task/{thread}/wchan", encoding="ascii") as file:
                if "skb_wait" in file.read():
                    return True
    return False


@check
def survive_the_end_of_the_guard():
    """The server goes on with the clients that it has, and takes no others: nobody would kill them if it died."""
    with folder() as directory:
        arguments = ("--socket", directory / "m", "--memory", memory_file(directory, SIZE))
        with Pager("firecracker", *arguments, log=directory / "log") as pager:
            pager.says("listening")
            server = server_of(pager)
            try:
                with half_read(directory / "m") as machine:
                    pager.process.kill()
                    pager.process.wait()
                    expect_end(Machine(machine_in_two_steps, directory / "m", content(SIZE)), -signal.SIGKILL)
                    require("the guard is gone" in pager.output(), pager.output())
                    reads_the_rest(machine)
            finally:
                kill(server)


def long_name(index):
    return f"m{index}-".ljust(128, "n")


@check
def survive_more_names_than_the_environment_has_room_for():
    """The keeper passes them to a successor all the same."""
    with folder() as directory:
        memory, control = memory_file(directory, SIZE), directory / "control"
        config = directory / "config"
        config.write_text(json.dumps({"maxMachines": MANY, "machines": [
            {"name": long_name(index), "socket": str(directory / str(index)), "memory": str(memory)}
            for index in range(MANY)]}))
        with Pager("serve", "--control", control, "--config", config, "--supervise") as pager:
            pager.says("ready")
            with half_read(directory / "0") as machine:
                kill(next_server(keeper_of(pager)))
                pager.says("ready", 2)
                reads_the_rest(machine)
            serve_one(directory / str(MANY - 1), content(SIZE))


@check
def survive_more_names_than_an_older_keeper_can_pass():
    """SIGHUP replaces the server, and not its keeper: who cannot be kept is refused."""
    with replaceable_program() as (copy, before), supervised("--max-restarts", 0) as (pager, directory, control):
        # As a server is started by a keeper that does not know the file of names.
        new = copy.with_name("new")
        new.write_text(f'#!/bin/sh\nunset UFFD_PAGER_NAMES\nexec {before} "$@"\n')
        new.chmod(0o755)
        os.rename(new, copy)
        with half_read(directory / "m") as machine:
            pager.process.send_signal(signal.SIGHUP)
            pager.says("ready", 2)
            refused = refusals(control, directory, directory / "memory")
            require("names" in refused[0], refused[0])
            pager.process.send_signal(signal.SIGHUP)
            pager.says("ready", 3)
            reads_the_rest(machine)
        serve_one(directory / "0", content(SIZE))


def refusals(control, directory, memory):
    """Adds many machines: why some of them are refused."""
    answers = [ask(control, "POST", "/v1/machines", {
        "name": long_name(index), "socket": str(directory / str(index)), "memory": str(memory)}) for index in range(MANY)]
    refused = [answer["error"] for status, answer in answers if status != 201]
    require(0 < len(refused) < MANY, f"{len(refused)} are refused")
    return refused


@check
def survive_more_names_than_systemd_can_pass():
    """Who cannot be kept is refused: with more, systemd could not start the service again."""
    with folder() as directory:
        memory, control = memory_file(directory, SIZE), directory / "control"
        with Manager(directory, "serve", "--control", control, "--fd-store", room=1 << 20) as service:
            service.says("ready")
            refused = refusals(control, directory, memory)
            require("names" in refused[0], refused[0])
            # Those that were added can be served.
            with half_read(directory / "0") as machine:
                service.drain()
                server = next_server(service.process)
                for process in (service.process, server):
                    kill(process)
                service.starts_again(-signal.SIGKILL)
                service.says("ready", 2)
                reads_the_rest(machine)
            serve_one(directory / "1", content(SIZE))
