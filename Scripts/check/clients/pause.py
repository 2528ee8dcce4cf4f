"""Machines of uffd-pager serve that are paused and resumed, and how far their loading is."""
import contextlib
import json
import os
import signal
import subprocess
import time

from firecracker import SIZE, machine_that_reads
from harness import LIMIT, Machine, becomes, check, content, expect_end, folder, program, require
from nbd import exporting, skip_without_nbd
from serve import ask, ctl, serving


def waits(machine):
    """Waits until a thread of a machine waits for a page, and its fault was read."""
    end = time.monotonic() + LIMIT
    while True:
        for number in os.listdir(f"/proc/{machine.process}/fd"):
            # One that is closed meanwhile is another.
            with contextlib.suppress(FileNotFoundError):
                with open(f"/proc/{machine.process}/fdinfo/{number}", encoding="ascii") as file:
                    lines = dict(line.split(":", 1) for line in file if ":" in line)
                if int(lines.get("total", 0)) > 0 and int(lines["pending"]) == 0:
                    return
        require(time.monotonic() < end, "the machine does not wait")
        time.sleep(0.01)


def session_of(control, name, holds=lambda session: True):
    """The only session of a machine, as soon as something holds."""
    end = time.monotonic() + LIMIT
    while True:
        sessions = json.loads(ctl(control, "show", name))["sessions"]
        if len(sessions) == 1 and holds(sessions[0]):
            return sessions[0]
        require(time.monotonic() < end, f"it does not hold: {sessions}")
        time.sleep(0.01)


def started(control, *arguments):
    return subprocess.Popen([program(), "ctl", *arguments, "--control", str(control)], stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def stopped(process):
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def finished(process):
    text, _ = process.communicate(timeout=LIMIT)
    require(process.returncode == 0 and json.loads(text) == {"sessions": 1}, f"{process.returncode}: {text}")


@check
def serve_pause_and_resume():
    expected = content(SIZE)
    with serving() as (pager, directory, control):
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
        # A machine that comes during a pause gets no page either.
        require(json.loads(ctl(control, "pause", "m")) == {"sessions": 0}, "there is a session")
        with Machine(machine_that_reads, directory / "m", expected) as machine:
            waits(machine)
            require(json.loads(ctl(control, "show", "m"))["state"] == "paused", "it is not paused")
            require(json.loads(ctl(control, "pause", "m")) == {"sessions": 1}, "there is no session")
            populate = started(control, "populate", "m")
            session = session_of(control, "m", lambda session: "loading" in session)
            require(session["loading"] == {"kind": "populate", "bytesLeft": SIZE}, session)
            require(session["totals"]["filledBytes"] == 0, session)
            metrics = ctl(control, "metrics")
            for line in ('uffd_pager_paused{machine="m"} 1', f'uffd_pager_loading_bytes{{machine="m"}} {SIZE}'):
                require(f"{line}\n" in metrics, f"{line} is not in {metrics}")
            require(json.loads(ctl(control, "resume", "m")) == {"sessions": 1}, "there is no session")
            finished(populate)
            require(machine.word() == b"r", "the machine could not read")
            shown = json.loads(ctl(control, "show", "m"))
            require(shown["state"] == "serving" and "loading" not in shown["sessions"][0], shown)
            becomes(lambda: json.loads(ctl(control, "show", "m"))["totals"]["filledBytes"], SIZE, "what is filled")
            machine.tell()
            expect_end(machine)
        pager.says(": ended ")
        # What is told to drain loads, paused or not.
        ctl(control, "pause", "m")
        with Machine(machine_that_reads, directory / "m", expected) as machine:
            waits(machine)
            require(json.loads(ctl(control, "drain", "m")) == {"sessions": 1}, "there is no session")
            require(machine.word() == b"r", "the machine could not read")
            require(json.loads(ctl(control, "show", "m"))["state"] == "paused", "a drain ends a pause")
            machine.tell()
            expect_end(machine)
        ctl(control, "remove", "m")
        require("no machine" in ctl(control, "pause", "m", code=1), "a machine that was removed is paused")


def add(control, directory, uri):
    status, answer = ask(control, "POST", "/v1/machines", {"name": "m", "socket": str(directory / "m"), "memory": uri})
    if status == 422:
        skip_without_nbd(answer["error"])
    require(status == 201, f"{status}: {answer}")


@check
def serve_tells_what_a_drain_has_left():
    with folder() as where, exporting(where) as (uri, server), serving() as (pager, directory, control):
        add(control, directory, uri)
        with contextlib.ExitStack() as stack:
            with stopped(server):
                machine = stack.enter_context(Machine(machine_that_reads, directory / "m", content(SIZE)))
                waits(machine)
                drain = started(control, "drain", "m")
                session = session_of(control, "m", lambda session: "loading" in session)
                require(session["loading"] == {"kind": "drain", "bytesLeft": SIZE}, session)
            finished(drain)
            require(json.loads(ctl(control, "show", "m"))["sessions"] == [], "it is still served")
            require(machine.word() == b"r", "the machine could not read")
            machine.tell()
            expect_end(machine)
        pager.says(": ended ")


@check
def serve_ends_a_drain_that_hangs():
    # What a drain waits for is killed or poisoned when that is said, or when its time is over.
    for options, status, code in ((["--ending", "kill"], -9, 0), (["--ending", "poison"], -7, 0), (["--seconds", "0"], -7, 1)):
        with folder() as where, exporting(where) as (uri, server), serving() as (pager, directory, control):
            add(control, directory, uri)
            with stopped(server), Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
                waits(machine)
                drain = started(control, "drain", "m")
                session_of(control, "m", lambda session: "loading" in session)
                ctl(control, "remove", "m", *options, code=code)
                require(machine.end() == status, f"{options}: the machine ended with {machine.status}")
                if status == -9:
                    finished(drain)
                else:
                    # It was to load what is lost.
                    drain.communicate(timeout=LIMIT)
                    require(drain.returncode == 1, f"the drain ended with {drain.returncode}")
            pager.says(": ended ")
