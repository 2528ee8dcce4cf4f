"""Servers of uffd-pager that die when they have shut a socket, and before they have ended: at a removal, and at a signal."""
import contextlib
import json
import os
import signal
import socket

from access import STRANGER
from ending import goes_on
from firecracker import SIZE, machine_that_reads
from harness import Machine, Pager, becomes, check, content, folder, memory_file, require
from keeping import supervised_firecracker
from manager import Manager
from nbd import exporting
from pause import add, started, stopped, waits
from serve import ctl
from store import all_die, kept_of_machines, stored
from successor import half_read, reads_the_rest
from survive import keeper_of, kill, next_server, supervised
from told import stops_with


@contextlib.contextmanager
def waiting(prefix=()):
    """A pager under a keeper, and a machine m that waits for its first page as long as the source is stopped."""
    with folder() as directory, exporting(directory) as (uri, source):
        control = directory / "control"
        with Pager("serve", "--control", control, "--supervise", prefix=prefix) as pager:
            pager.says("ready")
            add(control, directory, uri)
            with stopped(source), Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
                waits(machine)
                yield pager, directory, machine, source


@contextlib.contextmanager
def removing(directory):
    removal = started(directory / "control", "remove", "m")
    try:
        becomes((directory / "m").exists, False, "whether the socket is there")
        yield
    finally:
        removal.kill()
        removal.communicate()


def resumes(source):
    source.send_signal(signal.SIGCONT)


def is_quiet(pager):
    """A server that cannot accept says so once, and does not try for ever."""
    count = pager.output().count("can be accepted")
    require(count <= 1, f"the log says {count} times that nobody can be accepted")


@check
def survive_a_removal_that_has_not_ended():
    """The machine is there again, with its socket: who has asked for the removal has got no answer."""
    with waiting() as (pager, directory, machine, source):
        for number in range(2, 4):
            with removing(directory):
                kill(next_server(keeper_of(pager)))
                pager.says("ready", number)
            require((directory / "m").exists(), "nobody listens")
        resumes(source)
        goes_on(machine)
        with Machine(machine_that_reads, directory / "m", content(SIZE)) as another:
            goes_on(another)
        ctl(directory / "control", "remove", "m")
        require(not (directory / "m").exists(), "the socket is left")
        is_quiet(pager)


@check
def survive_a_removal_beside_many_clients():
    """They have more than half of the keeper's room; what takes the place of a machine's old socket has its room."""
    with waiting(("prlimit", "--nofile=256:256")) as (pager, directory, machine, source), contextlib.ExitStack() as stack:
        ctl(directory / "control", "add", "file", "--socket", directory / "file", "--memory", directory / "memory")
        others = [stack.enter_context(half_read(directory / "file")) for _ in range(16)]
        for number in range(2, 4):
            with removing(directory):
                kill(next_server(keeper_of(pager)))
                pager.says("ready", number)
            require("without its socket" not in pager.output() and (directory / "m").exists(), "nobody listens")
        resumes(source)
        goes_on(machine)
        for other in others:
            reads_the_rest(other)


@check
def survive_a_removal_and_a_store_that_has_no_room():
    """A machine whose new socket cannot be kept is there all the same, for its clients."""
    with folder() as directory, exporting(directory) as (uri, source):
        control = directory / "control"
        # The restarts, the machine, its client, and what describes the machine without its socket.
        with Manager(directory, "serve", "--control", control, "--fd-store", room=20) as service:
            service.says("ready")
            add(control, directory, uri)
            with stopped(source), Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
                waits(machine)
                for number in range(2, 4):
                    service.drain()
                    if number == 2:
                        # A store that has become smaller.
                        service.room = 1 + 2 + 4 - 1
                    with removing(directory):
                        all_die(service)
                        service.says("ready", number)
                    require(kept_of_machines(service) == [1], f"the store has {kept_of_machines(service)}")
                service.says("without its socket", 2)
                resumes(source)
                goes_on(machine)


@check
def survive_a_removal_whose_path_has_been_taken():
    """The machine goes on, although nobody can connect to it any more."""
    with waiting() as (pager, directory, machine, source), socket.socket(socket.AF_UNIX) as other:
        with removing(directory):
            other.bind(str(directory / "m"))
            other.listen()
            kill(next_server(keeper_of(pager)))
            pager.says("goes on without its socket")
            pager.says("ready", 2)
        resumes(source)
        goes_on(machine)
        names = [entry["name"] for entry in json.loads(ctl(directory / "control", "list"))["machines"]]
        require(names == ["m"], f"the machines are {names}")
        ctl(directory / "control", "remove", "m")
        require((directory / "m").exists(), "the socket of another program is removed")
        is_quiet(pager)


@contextlib.contextmanager
def replaced_socket(path):
    """Another program that has taken the path of a socket."""
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        yield other


@check
def survive_a_path_that_has_been_taken():
    """The log says so, and the other program's socket stays where it is."""
    with supervised() as (pager, directory, control), half_read(directory / "m") as machine:
        with replaced_socket(directory / "m"):
            for number in range(2, 4):
                kill(next_server(keeper_of(pager)))
                pager.says("ready", number)
            pager.says("no longer at its path")
            pager.says("goes on without its socket", 2)
            require(pager.output().count("listening machine=m") == 1, pager.output())
            ctl(control, "remove", "m")
            require((directory / "m").exists(), "the socket of another program is removed")
        reads_the_rest(machine)
    with supervised_firecracker() as (pager, path), replaced_socket(path):
        kill(next_server(keeper_of(pager)))
        pager.says("goes on without its socket")
        stops_with(pager, 0)
        require(path.exists(), "the socket of another program is removed")


@check
def survive_in_a_folder_of_another_user():
    """Firecracker's jailer gives it to the machine's user when the server listens, which cannot look at its path then."""
    with folder() as directory:
        jail = directory / "jail"
        jail.mkdir()
        path = jail / "m"
        with Pager("firecracker", "--supervise", "--socket", path, "--memory", memory_file(directory, SIZE)) as pager:
            pager.says("listening")
            os.chown(jail, STRANGER, STRANGER)
            jail.chmod(0o700)
            kill(next_server(keeper_of(pager)))
            pager.says("listening", 2)
            with half_read(path) as machine:
                reads_the_rest(machine)
            require("no longer at its path" not in pager.output(), pager.output())
            os.chown(jail, 0, 0)
            stops_with(pager, 0)


@check
def survive_a_path_that_has_been_removed():
    """The socket is there again."""
    with supervised() as (pager, directory, _), half_read(directory / "m") as machine:
        (directory / "m").unlink()
        kill(next_server(keeper_of(pager)))
        pager.says("no longer at its path")
        pager.says("ready", 2)
        with half_read(directory / "m") as another:
            reads_the_rest(another)
        reads_the_rest(machine)


def spelled(path):
    """Other names of a path."""
    return (f"{path.parent}//{path.name}", f"{path.parent}/./{path.name}", os.path.relpath(path, "/var"))


@check
def survive_another_spelling_of_the_path():
    """A machine that waits to be accepted is served, and not killed."""
    for name in ("m", "n" * 70):
        with in_folder("/var"), folder() as directory:
            path = directory / name
            arguments = ("firecracker", "--socket", path, "--memory", memory_file(directory, SIZE), "--fd-store")
            with Manager(directory, *arguments) as service:
                service.says("listening")
                before = str(path)
                for number, spelling in enumerate(spelled(path), 2):
                    inode = path.stat().st_ino
                    service.arguments[service.arguments.index(before)] = before = spelling
                    all_die(service)
                    service.says("listening", number)
                    require(path.stat().st_ino == inode, "the socket is another one")
                    with half_read(path) as machine:
                        reads_the_rest(machine)


@contextlib.contextmanager
def in_folder(path):
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@check
def survive_another_path_of_the_socket():
    """A service that systemd starts again with another --socket listens there, and machines go on."""
    with stored() as (service, path), half_read(path) as machine:
        other = path.with_name("other")
        service.arguments = [str(other) if argument == str(path) else argument for argument in service.arguments]
        all_die(service)
        service.says(f"listening socket={other}")
        require(other.exists() and not path.exists(), "the socket is not where it should be")
        require(kept_of_machines(service) == [2], "the old socket is still kept")
        for _ in range(2):
            with half_read(other) as another:
                reads_the_rest(another)
            all_die(service)
        reads_the_rest(machine)


@check
def survive_a_stop_that_has_not_ended():
    """A server that loads what is left has shut its sockets; its successor does the same."""
    with waiting() as (pager, directory, machine, source):
        server = next_server(keeper_of(pager))
        pager.process.terminate()
        becomes((directory / "m").exists, False, "whether the socket is there")
        kill(server)
        pager.says("listening machine=m", 2)
        resumes(source)
        pager.ends(0)
        goes_on(machine)
        require(not (directory / "m").exists(), "the socket is left")
        is_quiet(pager)
