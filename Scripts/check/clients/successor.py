"""What a successor of a server of uffd-pager does, and what happens without one."""
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess

from firecracker import SIZE, hand_over, machine_that_reads
from harness import (LIMIT, Machine, Pager, Skip, becomes, check, content, expect_end, firecracker_json, folder, memory_file,
                     program, registered, require)
from manager import Manager
from memory import LIBC, PAGE
from pause import waits
from serve import ctl
from survive import keeper_of, kill, next_server, supervised
from told import run


def machine_in_two_steps(end, path, expected):
    """Reads its first half, and the rest when it is told."""
    memory, uffd = registered(SIZE)
    connection = hand_over(path, firecracker_json((memory, 0)), [uffd.number])
    half = len(expected) // 2
    for place in range(0, len(expected), PAGE):
        if place == half:
            end.sendall(b"h")
            end.recv(1)
        found = memory.read(place, 16)
        require(found == expected[place:place + 16], f"wrong bytes at {place}: {found!r}")
    end.sendall(b"r")
    end.recv(1)
    connection.close()


@contextlib.contextmanager
def half_read(path):
    with Machine(machine_in_two_steps, path, content(SIZE)) as machine:
        require(machine.word() == b"h", "the machine could not read")
        yield machine


def reads_the_rest(machine):
    machine.tell()
    require(machine.word() == b"r", "the machine could not read the rest")
    machine.tell()
    expect_end(machine)


@check
def survive_firecracker_command():
    for command in ("firecracker", "handoff"):
        with folder() as directory:
            path = directory / "socket"
            with Pager(command, "--socket", path, "--memory", memory_file(directory, SIZE), "--supervise") as pager:
                pager.says("listening")
                if command == "handoff":
                    kill(next_server(keeper_of(pager)))
                    pager.says("listening", 2)
                    continue
                with half_read(path) as machine:
                    kill(next_server(keeper_of(pager)))
                    reads_the_rest(machine)
                pager.says(": ended ")
                pager.process.terminate()
                pager.ends(0)
                require(not path.exists(), "the socket is left")


@check
def survive_ends_in_order_after_a_kill():
    with supervised() as (pager, directory, _):
        with half_read(directory / "m") as machine:
            kill(next_server(keeper_of(pager)))
            pager.says("ready", 2)
            pager.process.terminate()
            pager.ends(0)
            reads_the_rest(machine)
        require(not (directory / "m").exists(), "the socket is left")


@contextlib.contextmanager
def replaceable_program():
    """Tests a copy of the program, in whose place another may come."""
    with folder() as where:
        copy = where / "uffd-pager"
        shutil.copy(program(), copy)
        before = os.environ["UFFD_PAGER"]
        os.environ["UFFD_PAGER"] = str(copy)
        try:
            yield copy, before
        finally:
            os.environ["UFFD_PAGER"] = before


@check
def survive_replaces_the_program():
    """SIGHUP takes the program's file as it is then."""
    with replaceable_program() as (copy, before), supervised("--max-restarts", 0) as (pager, directory, _):
        os.environ["UFFD_PAGER"] = before
        keeper = keeper_of(pager)
        server = next_server(keeper)
        with half_read(directory / "m") as machine:
            new = copy.with_name("new")
            shutil.copy(before, new)
            os.rename(new, copy)
            pager.process.send_signal(signal.SIGHUP)
            server = next_server(keeper, server)
            pager.says("ready", 2)
            require(os.path.samefile(f"/proc/{server}/exe", copy), "the old program serves")
            require(not os.path.samefile(f"/proc/{keeper}/exe", copy), "the keeper is another")
            reads_the_rest(machine)


@check
def survive_going_back_to_an_older_program():
    """One that does not know the file of names finds them in the environment, as systemd passes them."""
    with replaceable_program() as (copy, before), supervised("--max-restarts", 0) as (pager, directory, control):
        with half_read(directory / "m") as machine:
            old = copy.with_name("old")
            old.write_text(f'#!/bin/sh\nunset UFFD_PAGER_NAMES\nexec {before} "$@"\n')
            old.chmod(0o755)
            os.rename(old, copy)
            pager.process.send_signal(signal.SIGHUP)
            pager.says("ready", 2)
            machines = json.loads(ctl(control, "list"))["machines"]
            require([each["name"] for each in machines] == ["m"], f"the machines are {machines}")
            reads_the_rest(machine)


@check
def survive_requests_while_the_server_is_replaced():
    """ctl waits for the successor, and asks it what the last server has not answered."""
    with supervised("--max-restarts", 0) as (pager, _, control):
        for number in range(2, 7):
            pager.process.send_signal(signal.SIGHUP)
            while pager.output().count("ready") < number:
                many = [subprocess.Popen([program(), "ctl", "list", "--control", control], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.PIPE, text=True) for _ in range(8)]
                for one in many:
                    _, text = one.communicate(timeout=LIMIT)
                    require(one.returncode == 0, f"exit code {one.returncode}: {text}")
                require(pager.process.poll() is None, pager.output())


@check
def survive_kills_a_machine_whose_source_has_gone():
    for change in ("removed", "shorter", "another"):
        with supervised() as (pager, directory, control), half_read(directory / "m") as machine:
            memory = directory / "memory"
            if change == "removed":
                memory.unlink()
            elif change == "shorter":
                os.truncate(memory, SIZE - PAGE)
            else:
                (directory / "new").write_bytes(bytes(SIZE))
                os.rename(directory / "new", memory)
            kill(next_server(keeper_of(pager)))
            require(machine.end() == -signal.SIGKILL, f"{change}: the machine ended with {machine.status}")
            pager.says("is killed")
            pager.says("ready", 2)
            if change == "removed":
                require(json.loads(ctl(control, "list"))["machines"] == [], "the machine is there")
                require(not (directory / "m").exists(), "its socket is there")
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        with Pager("firecracker", "--socket", directory / "m", "--memory", memory, "--supervise") as pager:
            pager.says("listening")
            with half_read(directory / "m") as machine:
                memory.unlink()
                kill(next_server(keeper_of(pager)))
                require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
                pager.ends(66)


def holds_up(end, process):
    """Traces a process, so that it does not end before this one, even if it is killed."""
    seize, trace_exit = 0x4206, 0x40
    words = map(ctypes.c_long, (seize, process, 0, trace_exit))
    end.sendall(b"t" if LIBC.ptrace(*words) == 0 else b"n")
    end.recv(1)


@contextlib.contextmanager
def late_ends(machines):
    with contextlib.ExitStack() as stack:
        for machine in machines:
            if stack.enter_context(Machine(holds_up, machine.process)).word() != b"t":
                raise Skip("needs ptrace(2)")
        yield
        for machine in machines:
            becomes(lambda: state_of(machine.process), "t", "the state of a client that is killed")
    for machine in machines:
        require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")


def state_of(process):
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


@check
def survive_clients_that_end_late():
    """The kernel may hold up the ends of clients that are killed: others do not wait for them."""
    with supervised() as (pager, directory, control), contextlib.ExitStack() as stack:
        shutil.copy(directory / "memory", directory / "copy")
        ctl(control, "add", "other", "--socket", directory / "o", "--memory", directory / "copy")
        killed = [stack.enter_context(half_read(directory / "m")) for _ in range(2)]
        with half_read(directory / "o") as machine, late_ends(killed):
            (directory / "memory").unlink()
            kill(next_server(keeper_of(pager)))
            reads_the_rest(machine)
            pager.says("ready", 2)
        pager.process.terminate()
        pager.ends(1)
    with folder() as directory, contextlib.ExitStack() as stack:
        memory = memory_file(directory, SIZE)
        with Pager("firecracker", "--socket", directory / "m", "--memory", memory, "--supervise") as pager:
            pager.says("listening")
            machines = [stack.enter_context(half_read(directory / "m")) for _ in range(3)]
            with late_ends(machines[:2]):
                memory.unlink()
                kill(next_server(keeper_of(pager)))
                require(machines[2].end() == -signal.SIGKILL, f"the machine ended with {machines[2].status}")
            pager.ends(66)


@check
def survive_without_extras():
    """What machines can do without must not cost them their lives."""
    for option in ("--prefetch", "--record", "--config"):
        with folder() as directory:
            memory, where = memory_file(directory, SIZE), directory / "where"
            where.mkdir()
            file = where / "file"
            if option == "--prefetch":
                with Pager("firecracker", "--socket", directory / "m", "--memory", memory, "--record", file, "--once") as pager:
                    pager.says("listening")
                    with half_read(directory / "m"):
                        pass
                    pager.ends(0)
            arguments = ["firecracker", "--socket", directory / "m", "--memory", memory, option, file]
            if option == "--config":
                arguments = ["serve", "--control", directory / "control", option, file]
                file.write_text(json.dumps({"machines": [
                    {"name": "m", "socket": str(directory / "m"), "memory": str(memory), "record": str(where / "record")}]}))
            with Pager(*arguments, "--supervise") as pager:
                pager.says("listening")
                with half_read(directory / "m") as machine:
                    shutil.rmtree(where)
                    kill(next_server(keeper_of(pager)))
                    reads_the_rest(machine)
                pager.says("the server goes on without ", 2 if option == "--config" else 1)
                pager.says(": ended ")
                pager.process.terminate()
                pager.ends(0)


@check
def survive_lower_limits():
    """Machines that are there stay, and only further ones are refused."""
    with folder() as directory:
        memory, config = memory_file(directory, SIZE), directory / "config"
        names = ("a", "b")
        machines = [{"name": name, "socket": str(directory / name), "memory": str(memory)} for name in names]
        config.write_text(json.dumps({"machines": machines}))
        control = directory / "control"
        with Pager("serve", "--control", control, "--config", config, "--supervise") as pager:
            pager.says("ready")
            with half_read(directory / "a") as one, half_read(directory / "b") as other:
                config.write_text(json.dumps({"machines": machines[:1], "maxMachines": 1, "maxSessions": 1}))
                kill(next_server(keeper_of(pager)))
                pager.says("ready", 2)
                reads_the_rest(one)
                reads_the_rest(other)
            shown = json.loads(ctl(control, "list"))["machines"]
            require([machine["name"] for machine in shown] == [*names], f"the machines are {shown}")
            refusal = ctl(control, "add", "c", "--socket", directory / "c", "--memory", memory, code=1)
            require("already" in refusal, refusal)


@check
def survive_the_end_of_the_keeper():
    with supervised() as (pager, directory, control), half_read(directory / "m") as machine:
        keeper = keeper_of(pager)
        server = next_server(keeper)
        kill(keeper)
        pager.says("the keeper has died")
        # The server goes on, for clients that are there and for further ones.
        with half_read(directory / "m") as other:
            reads_the_rest(other)
        require(json.loads(ctl(control, "show", "m"))["state"] == "serving", "it is not served")
        # Its guard is there yet.
        kill(server)
        require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
        pager.ends(70)
    with supervised() as (pager, directory, _), half_read(directory / "m") as machine:
        kill(keeper_of(pager))
        pager.says("the keeper has died")
        pager.process.terminate()
        pager.ends(0)
        reads_the_rest(machine)


@check
def survive_a_client_that_dies_while_nobody_serves():
    with supervised() as (pager, directory, control):
        keeper = keeper_of(pager)

        def descriptors():
            return [len(os.listdir(f"/proc/{process}/fd")) for process in (pager.process.pid, keeper)]

        before = descriptors()
        with half_read(directory / "m") as machine, half_read(directory / "m") as other:
            os.kill(keeper, signal.SIGSTOP)
            kill(next_server(keeper))
            machine.kill()
            os.kill(keeper, signal.SIGCONT)
            pager.says(f"ended while nobody served machine=m process={machine.process} session=1")
            reads_the_rest(other)
        pager.says(": ended ")
        becomes(descriptors, before, "what the guard and the keeper have open")
        require(json.loads(ctl(control, "show", "m"))["state"] == "waiting", "a client is left")


@check
def survive_no_crash_loop():
    with supervised("--max-restarts", 2) as (pager, directory, _), half_read(directory / "m") as machine:
        keeper, server = keeper_of(pager), None
        for _ in range(3):
            server = next_server(keeper, server)
            kill(server)
        require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
        pager.ends(70)
        require("too often" in pager.output(), pager.output())
    with folder() as directory:
        memory_file(directory, SIZE)
        with Manager(directory, "firecracker", "--socket", directory / "m", "--memory", directory / "memory",
                     "--fd-store", "--max-restarts", 1) as service:
            service.says("listening")
            with half_read(directory / "m") as machine:
                for number in range(1, 3):
                    kill(next_server(service.process))
                    service.starts_again(75)
                    if number == 1:
                        service.says("listening", 2)
                require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
            service.says("too often")
            service.says("listening", 3)
            service.forgets("client.")


@check
def survive_a_pause():
    """A machine that is paused stays so: its memory may be on the move."""
    with supervised() as (pager, directory, control):
        ctl(control, "pause", "m")
        with Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
            waits(machine)
            kill(next_server(keeper_of(pager)))
            pager.says("ready", 2)
            shown = json.loads(ctl(control, "show", "m"))
            require(shown["state"] == "paused" and len(shown["sessions"]) == 1, shown)
            waits(machine)
            require(json.loads(ctl(control, "show", "m"))["totals"]["filledBytes"] == 0, "a page was filled")
            ctl(control, "resume", "m")
            require(machine.word() == b"r", "the machine could not read")
            machine.tell()
            expect_end(machine)
        ctl(control, "remove", "m")
        kill(next_server(keeper_of(pager)))
        pager.says("ready", 3)
        require(json.loads(ctl(control, "list"))["machines"] == [], "a machine that was removed is there")
