"""Servers of uffd-pager that die when they have shut a socket, and before they have ended: at a removal, and at a signal."""
import contextlib
import json
import signal
import socket

from ending import goes_on
from firecracker import SIZE, machine_that_reads
from harness import Machine, Pager, becomes, check, content, folder, require
from nbd import exporting
from pause import add, started, stopped, waits
from serve import ctl
from store import all_die, kept_of_machines, stored
from successor import half_read, reads_the_rest
from survive import keeper_of, kill, next_server


@contextlib.contextmanager
def waiting():
    """A pager under a keeper, and a machine m that waits for its first page as long as the source is stopped."""
    with folder() as directory, exporting(directory) as (uri, source):
        control = directory / "control"
        with Pager("serve", "--control", control, "--supervise") as pager:
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


@check
def survive_another_path_of_the_socket():
    """A service that systemd starts again with another --socket listens there, and machines go on."""
    with stored() as (service, path), half_read(path) as machine:
        other = path.with_name("other")
        service.arguments = [str(other) if argument == str(path) else argument for argument in service.arguments]
        all_die(service)
        service.says(f"listening socket={other}")
        require(other.exists() and not path.exists(), "the socket is not where it should be")
        require(kept_of_machines(service) == [1], "the old socket is still kept")
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
