"""A store of systemd's manager that has little room, loses what it is told, or is late; and descriptors on their way."""
import contextlib
import os
import resource
import select
import signal
import socket
import time

from firecracker import SIZE
from harness import LIMIT, Machine, becomes, check, children, content, expect_end, folder, memory_file, require
from keeping import supervised_firecracker
from manager import Manager
from nbd import exporting, skip_without_nbd
from pause import started
from serve import ctl
from successor import half_read, machine_in_two_steps, reads_the_rest, replaceable_program
from survive import keeper_of, kill, next_server


@contextlib.contextmanager
def stored(*options, **store):
    with folder() as directory:
        arguments = ("firecracker", "--socket", directory / "m", "--memory", memory_file(directory, SIZE), "--fd-store", *options)
        with Manager(directory, *arguments, **store) as service:
            service.says("listening")
            yield service, directory / "m"


def all_die(service):
    processes = [service.process]
    while found := children(processes[-1]):
        processes += found
    service.drain()
    for process in processes:
        kill(process)
    service.starts_again(-signal.SIGKILL)


def kept_of_machines(service):
    """How many descriptors the store has of each machine, without its clients'."""
    service.drain()
    return [len(numbers) for name, numbers in service.store.items() if name.startswith("machine.")]


def says_nothing(machine):
    """Looks for a moment: one that is served at once, or killed, is found out."""
    ready, _, _ = select.select([machine.socket], [], [], 0.5)
    require(not ready, f"the machine says {ready and machine.word()}")


@check
def survive_a_store_with_little_room():
    """What an earlier server has left takes room too: who cannot be kept is refused."""
    # The restarts, the socket and its place, and two machines of four.
    with stored(room=11) as (service, path), half_read(path) as one:
        all_die(service)
        service.says("listening", 2)
        with half_read(path) as other:
            expect_end(Machine(machine_in_two_steps, path, content(SIZE)), -signal.SIGKILL)
            require(service.dropped == 0, f"the store has dropped {service.dropped}")
            reads_the_rest(other)
        reads_the_rest(one)


@check
def survive_a_file_of_no_client():
    """A server may die after it has had a client's memory file kept, and before the client itself."""
    with stored() as (service, path), half_read(path) as machine:
        service.drain()
        service.keep("file.9", [os.memfd_create("left")])
        all_die(service)
        service.says("listening", 2)
        service.forgets("file.")
        reads_the_rest(machine)


@check
def survive_a_store_that_keeps_half_of_a_machine():
    """It is killed, rather than left waiting for ever: its process is what is kept first."""
    # The restarts, the socket and its place, two while the machine arrives, and one more.
    with stored(room=6, tells_room=False) as (service, path), half_read(path) as machine:
        all_die(service)
        require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
        require(service.dropped > 0, "the store had room")
        service.says("listening", 2)


@check
def survive_a_store_that_forgets_nothing():
    """What is left under a name of an earlier machine does not come between a later one and its successor."""
    with stored("--supervise") as (service, path):
        service.lost_removals = 2
        with half_read(path) as machine:
            reads_the_rest(machine)
        service.says(": ended ")
        server = next_server(next_server(service.process))
        kill(server)
        service.says("listening", 2)
        with half_read(path) as machine:
            service.drain()
            kept = {name: len(numbers) for name, numbers in service.store.items() if name.startswith("client.")}
            require(list(kept.values()) == [4], f"the store has {kept}")
            all_die(service)
            reads_the_rest(machine)


@check
def survive_a_store_that_is_late():
    """No page is filled before the manager has the machine: it takes nothing from a process that is dead."""
    with stored() as (service, path):
        service.is_taking.clear()
        with Machine(machine_in_two_steps, path, content(SIZE)) as machine:
            says_nothing(machine)
            service.is_taking.set()
            require(machine.word() == b"h", "the machine could not read")
            all_die(service)
            reads_the_rest(machine)


@check
def survive_a_socket_of_another_path():
    """A successor that has taken all that was left still is one: it does not end because systemd's socket is not --socket."""
    with folder() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "m"
        listener.bind(str(path))
        listener.listen()
        arguments = ("firecracker", "--socket", path, "--memory", memory_file(directory, SIZE), "--fd-store")
        with Manager(directory, *arguments, sockets=[("vm.socket", listener)]) as service:
            service.says("listening")
            with half_read(path) as machine:
                service.arguments[service.arguments.index(str(path))] = str(directory / "other")
                all_die(service)
                service.says("systemd has passed the socket")
                service.says("listening", 2)
                reads_the_rest(machine)


@check
def survive_many_restarts_at_a_socket_of_systemd():
    """The machine's description is kept once."""
    with folder() as directory, socket.socket(socket.AF_UNIX) as listener:
        path, control, memory = directory / "m", directory / "control", memory_file(directory, SIZE)
        listener.bind(str(path))
        listener.listen()
        with Manager(directory, "serve", "--control", control, "--fd-store", sockets=[("vm.socket", listener)]) as service:
            service.says("ready")
            ctl(control, "add", "m", "--socket", path, "--memory", memory)
            with half_read(path) as machine:
                for number in range(2, 4):
                    all_die(service)
                    service.says("ready", number)
                    kept = kept_of_machines(service)
                    require(kept == [1], f"the store has {kept}")
                reads_the_rest(machine)


@check
def survive_a_machine_that_can_be_added_later():
    """A socket of systemd's is there for a machine that comes after one that could not be kept, or was removed."""
    with folder() as directory, socket.socket(socket.AF_UNIX) as listener:
        path, control, memory = directory / "m", directory / "control", memory_file(directory, SIZE)
        listener.bind(str(path))
        listener.listen()
        with Manager(directory, "serve", "--control", control, "--fd-store", room=2, sockets=[("vm.socket", listener)]) as service:
            service.says("ready")
            service.says("no machine listens")
            refusal = ctl(control, "add", "m", "--socket", path, "--memory", memory, code=1)
            require("FileDescriptorStoreMax" in refusal, refusal)
        (directory / "notify").unlink()
        # The server before may still be about to end.
        control = directory / "next"
        with Manager(directory, "serve", "--control", control, "--fd-store", sockets=[("vm.socket", listener)]) as service:
            service.says("ready")
            for spelling in (path, f"{directory}//m"):
                ctl(control, "add", "m", "--socket", spelling, "--memory", memory)
                with half_read(path) as machine:
                    reads_the_rest(machine)
                ctl(control, "remove", "m")


@check
def survive_a_machine_that_cannot_be_kept():
    """A client that has connected before that was known is killed, rather than left waiting for ever."""
    with folder() as directory:
        path, control, memory = directory / "m", directory / "control", memory_file(directory, SIZE)
        with Manager(directory, "serve", "--control", control, "--fd-store") as service:
            service.says("ready")
            service.drain()
            service.is_taking.clear()
            try:
                adding = started(control, "add", "m", "--socket", path, "--memory", memory)
                becomes(path.exists, True, "whether the socket is there")
                with Machine(machine_in_two_steps, path, content(SIZE)) as machine:
                    expect_end(machine, -signal.SIGKILL)
                adding.communicate(timeout=LIMIT)
            finally:
                service.is_taking.set()
            require(adding.returncode == 1, f"exit code {adding.returncode}")
            require(not path.exists(), "the socket is left")


@check
def survive_wrong_arguments():
    """Machines wait until somebody has corrected them, and are killed if the service is stopped."""
    with stored() as (service, path), half_read(path) as machine:
        right = service.arguments
        service.arguments = [*right, "--nonsense"]
        all_die(service)
        service.says("clients wait")
        service.arguments = right
        os.kill(service.process, signal.SIGHUP)
        service.starts_again(64)
        service.says("listening", 2)
        with half_read(path) as other:
            service.arguments = [*right, "--nonsense"]
            all_die(service)
            service.says("clients wait", 2)
            os.kill(service.process, signal.SIGTERM)
            for ended in (machine, other):
                require(ended.end() == -signal.SIGKILL, f"a machine ended with {ended.status}")
            service.ends(70)


def upgrades_to_nothing(is_there):
    with (replaceable_program() as (copy, _), supervised_firecracker() as (pager, path),
          contextlib.ExitStack() as stack):
        machine = stack.enter_context(half_read(path)) if is_there else None
        new = copy.with_name("new")
        new.write_text("#!/bin/sh\nexit 64\n")
        new.chmod(0o755)
        os.rename(new, copy)
        pager.process.send_signal(signal.SIGHUP)
        pager.says("listening", 2)
        reads_the_rest(machine or stack.enter_context(half_read(path)))


@check
def survive_a_program_that_is_of_no_use():
    """An upgrade that does not run: the version that was there before serves."""
    for is_there in (True, False):
        upgrades_to_nothing(is_there)


@check
def survive_too_many_descriptors_on_their_way():
    """A machine waits until there is room, and is not killed."""
    with supervised_firecracker() as (pager, path), contextlib.closing(os.fdopen(os.open(os.devnull, os.O_RDONLY))) as file:
        server = next_server(keeper_of(pager))
        before = resource.prlimit(server, resource.RLIMIT_NOFILE)
        one, other = socket.socketpair()
        with one, other:
            for _ in range(2):
                socket.send_fds(one, [b"."], [file.fileno()] * 200)
            resource.prlimit(server, resource.RLIMIT_NOFILE, (256, before[1]))
            with Machine(machine_in_two_steps, path, content(SIZE)) as machine:
                says_nothing(machine)
                for _ in range(2):
                    for number in socket.recv_fds(other, 1, 200)[1]:
                        os.close(number)
                require(machine.word() == b"h", "the machine could not read")
                reads_the_rest(machine)


@check
def survive_only_with_the_same_export():
    """Machines go on if the export has its name, wherever its server is, and are killed if it is another one."""
    with folder() as directory, exporting(directory) as (uri, _):
        at = {name: uri.replace("///", f"///{name}", 1) for name in ("one", "other")}
        (directory / "moved").symlink_to(directory / "export")
        moved = at["one"].replace("/export", "/moved")
        with Manager(directory, "firecracker", "--socket", directory / "m", "--memory", at["one"], "--fd-store") as service:
            end = time.monotonic() + LIMIT
            while "listening" not in service.output():
                skip_without_nbd(service.output())
                require(time.monotonic() < end, f"it does not listen: {service.output()}")
                time.sleep(0.01)
            with half_read(directory / "m") as machine, half_read(directory / "m") as stays:
                service.arguments[service.arguments.index(at["one"])] = moved
                all_die(service)
                reads_the_rest(stays)
                service.arguments[service.arguments.index(moved)] = at["other"]
                all_die(service)
                require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
            service.says("another one now")
