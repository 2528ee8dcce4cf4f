"""How uffd-pager ends: at signals, whatever waits at its control socket, machines go on by themselves."""
import contextlib
import select
import signal
import socket

from firecracker import SIZE, machine_that_reads
from firecracker import serving as serving_firecracker
from harness import LIMIT, Machine, Pager, becomes, check, content, expect_end, folder, require
from nbd import exporting
from pause import add, session_of, started, stopped, waits
from serve import Connection, ask, ctl, serving


@contextlib.contextmanager
def paused_machine(control, directory):
    """A machine that waits for its first page, and gets none."""
    ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
    ctl(control, "pause", "m")
    with Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
        waits(machine)
        yield machine


def goes_on(machine):
    require(machine.word() == b"r", "the machine could not read")
    machine.tell()
    expect_end(machine)


@check
def serve_ends_while_a_request_waits():
    """A request that waits for a paused machine does not hold up the end, at whatever signal."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with serving("--drain", "20") as (pager, directory, control), paused_machine(control, directory) as machine:
            populate = started(control, "populate", "m")
            session_of(control, "m", lambda session: "loading" in session)
            pager.process.send_signal(number)
            pager.ends(0)
            goes_on(machine)
            populate.communicate(timeout=60)


@check
def serve_ends_while_a_request_is_not_complete():
    with serving("--drain", "20") as (pager, directory, control), paused_machine(control, directory) as machine:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as half:
            half.connect(str(control))
            half.sendall(b"POST /v1/machines HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
            # Another is answered: the one before has been read.
            ctl(control, "list")
            pager.process.send_signal(signal.SIGTERM)
            pager.ends(0)
        goes_on(machine)


@check
def serve_ends_beside_the_next_server():
    """A server that still loads what is left leaves the control socket to the next one."""
    with folder() as where, exporting(where) as (uri, source), serving() as (pager, directory, control):
        add(control, directory, uri)
        with contextlib.ExitStack() as stack:
            with stopped(source):
                machine = stack.enter_context(Machine(machine_that_reads, directory / "m", content(SIZE)))
                waits(machine)
                pager.process.terminate()
                becomes(control.exists, False, "whether the control socket is there")
                stack.enter_context(Pager("serve", "--control", control)).says("ready")
            pager.ends(0)
            goes_on(machine)
            ctl(control, "list")


@check
def serve_bounds_removals():
    """Removals that load memory leave connections for others, and for one that ends them."""
    with folder() as where, exporting(where) as (uri, source), serving() as (_, directory, control), \
            contextlib.ExitStack() as stack:
        add(control, directory, uri)
        with stopped(source):
            machine = stack.enter_context(Machine(machine_that_reads, directory / "m", content(SIZE)))
            waits(machine)
            connections = [stack.enter_context(contextlib.closing(Connection(control))) for _ in range(70)]
            for connection in connections:
                connection.request("DELETE", "/v1/machines/m")
            for _ in range(6):
                ready, _, _ = select.select([connection.sock for connection in connections], [], [], LIMIT)
                require(ready, "more removals wait")
                connection = next(connection for connection in connections if connection.sock in ready)
                answer = connection.getresponse()
                require(answer.status == 429 and b"64 such requests" in answer.read(), f"answered {answer.status}")
                connections.remove(connection)
            require(ask(control, "GET", "/v1/machines/m")[0] == 200, "no answer")
            require(ask(control, "DELETE", "/v1/machines/m?ending=kill")[0] == 204, "the removal is refused")
            expect_end(machine, -signal.SIGKILL)


@check
def firecracker_drains_at_every_signal():
    for number in (signal.SIGINT, signal.SIGHUP):
        with serving_firecracker() as (pager, path, expected), Machine(machine_that_reads, path, expected) as machine:
            require(machine.word() == b"r", "the machine could not read")
            pager.process.send_signal(number)
            pager.ends(0)
            machine.tell()
            expect_end(machine)
