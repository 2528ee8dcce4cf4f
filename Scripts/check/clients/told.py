"""What an operator is told: by the log, exit codes, and ctl, if machines are not served, or memory is lost."""
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess

from firecracker import SIZE, hand_over, machine_that_reads
from firecracker import serving as serving_firecracker
from harness import (LIMIT, Machine, Pager, check, connect, content, expect_end, firecracker_json, folder, memory_file,
                     program, registered, require)
from limits import stranded
from memory import FEATURE_EVENT_REMOVE, MODE_MISSING, PAGE, Memory, Userfaultfd
from serve import Connection, ask, ctl, is_served, serving


def run(*arguments, **options):
    return subprocess.run([program(), *map(str, arguments)], stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT,
                          **({"stdout": subprocess.PIPE} | options))


def stops_with(pager, code):
    pager.process.terminate()
    pager.ends(code)


def first_page(path, end):
    """A machine that has its first page, and that touches the last one when it is told to."""
    memory, uffd = registered(SIZE)
    hand_over(path, firecracker_json((memory, 0)), [uffd.number])
    memory.read(SIZE // 2)
    end.sendall(b"r")
    end.recv(1)
    for page in range(0, SIZE, PAGE):
        memory.read(page)


@check
def told_what_an_end_has_lost():
    """Ends that load, and have no time for it."""
    for verb, failure, signals in (("drain", "poison", signal.SIGBUS), ("remove", "poison", signal.SIGBUS),
                                   ("drain", "kill", signal.SIGKILL)):
        with serving() as (pager, directory, control):
            ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory", "--on-failure", failure)
            with Machine(lambda end, path=directory / "m": first_page(path, end)) as machine:
                require(machine.word() == b"r", "the machine failed")
                is_served(control, "m")
                os.truncate(directory / "memory", PAGE)
                text = ctl(control, verb, "m", "--seconds", "0", code=1)
                require("pages of process" in text and str(machine.process) in text, f"{verb} says {text}")
                require(("killed" in text) == (failure == "kill"), f"{verb} says {text}")
                machine.tell()
                expect_end(machine, -signals)
            require(("no machine" in ctl(control, "show", "m", code=1 if verb == "remove" else 0)) == (verb == "remove"),
                    "the machine is not removed")
            stops_with(pager, 1)


@check
def told_of_machines_that_are_killed():
    """Also with --quiet: who, and why."""
    for message, complaint in ((lambda _: b"{}", "malformed"), (lambda _: b'[{"size":', "closed the connection")):
        with folder() as directory, Pager("firecracker", "--quiet", "--socket", directory / "s", "--memory",
                                          memory_file(directory, SIZE)) as pager:
            path = directory / "s"
            connect(path).close()
            require(stranded(path, message, closes=True) == -signal.SIGKILL, "the machine lives")
            pager.says("error: a client cannot be served, and is killed")
            require(complaint in pager.output() and "process=" in pager.output(), pager.output())
            stops_with(pager, 1)


@check
def told_that_there_are_too_many_machines():
    with serving_firecracker("--max-machines", "1") as (pager, path, expected):
        with Machine(machine_that_reads, path, expected) as first:
            require(first.word() == b"r", "the machine could not read")
            with Machine(machine_that_reads, path, expected) as second:
                expect_end(second, -signal.SIGKILL)
            pager.says("error: a client is not taken over, and is killed")
            first.tell()
            expect_end(first)
        stops_with(pager, 1)


def strays(_, path):
    """A machine that touches memory outside its regions."""
    memory, uffd = registered(2 * SIZE)
    inside = Memory(SIZE)
    inside.start = memory.start
    hand_over(path, firecracker_json((inside, 0)), [uffd.number])
    memory.read(0)
    # Of a file, so that it cannot become one mapping with the region, which would have grown.
    file = os.memfd_create("other")
    os.truncate(file, SIZE)
    other = Memory(SIZE, file=file)
    uffd.register(other)
    other.read(0)


@check
def told_of_faults_outside_the_regions():
    for failure, end in (("kill", signal.SIGKILL), ("poison", signal.SIGBUS)):
        with serving_firecracker("--on-failure", failure) as (pager, path, _):
            with Machine(strays, path) as machine:
                expect_end(machine, -end)
            pager.says("outside its regions")
            stops_with(pager, 1)


@check
def told_why_memory_cannot_be_read():
    with serving_firecracker() as (pager, path, _):
        with Machine(lambda end: first_page(path, end)) as machine:
            require(machine.word() == b"r", "the machine failed")
            os.truncate(pager.folder / "memory", PAGE)
            machine.tell()
            expect_end(machine, -signal.SIGBUS)
        pager.says(": ended ")
        text = pager.output()
        require(text.count("the memory cannot be read") == 1 and "the file is shorter than it was" in text, text)
        require("retries=" in text and "\\'" not in text, text)
        stops_with(pager, 1)


@check
def told_of_names_that_no_machine_has():
    with serving() as (_, directory, control):
        for name in ("-", "a"):
            machine = {"name": name, "socket": str(directory / f"socket{name}"), "memory": str(directory / "memory")}
            require(ask(control, "POST", "/v1/machines", machine)[0] == 201, f"{name} is not added")
        for name in ("a/b", "..", "", "a?ending=kill", "x" * 200):
            for verb in ("remove", "drain", "show"):
                require("no machine" in ctl(control, verb, name, code=1), f"{verb} {name} is done")
        machines = json.loads(text := ctl(control, "list"))["machines"]
        require([machine["name"] for machine in machines] == ["-", "a"], f"the machines are {machines}")
        require("\\/" not in text and [*machines[0]] == sorted(machines[0]), f"the list is {text}")


@check
def told_that_the_limit_of_files_is_too_low():
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        for limit in (24, 30):
            with Pager("firecracker", "--socket", directory / "s", "--memory", memory,
                       prefix=("prlimit", f"--nofile={limit}:{limit}")) as pager:
                pager.ends(71)
                require("open files" in pager.output() and "listening" not in pager.output(), pager.output())


@check
def told_although_many_requests_wait():
    """Requests that wait for a machine leave connections for others; ctl does not wait for ever."""
    with serving() as (_, directory, control), contextlib.ExitStack() as stack:
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
        machine = stack.enter_context(Machine(lambda end: first_page(directory / "m", end)))
        require(machine.word() == b"r", "the machine failed")
        is_served(control, "m")
        ctl(control, "pause", "m")
        require("1 seconds" in ctl(control, "populate", "m", "--timeout", "1", code=69), "ctl waits")
        connections = []
        for index in range(300):
            connection = Connection(control)
            stack.callback(connection.close)
            connection.request("POST", "/v1/machines/m/populate")
            if index < 140:
                connections.append(connection)
            else:
                require(connection.getresponse().status == 429, "the request waits")
                connection.close()
        require(json.loads(ctl(control, "list"))["machines"], "no answer")
        ctl(control, "resume", "m")
        require(connections[0].getresponse().status == 200, "the first request has failed")
        machine.tell()
        expect_end(machine)


@check
def told_of_a_socket_of_systemd_at_another_path():
    with folder() as directory, contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(directory / "theirs"))
        listener.listen()
        script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        with Pager("firecracker", "--socket", directory / "ours", "--memory", memory_file(directory, SIZE),
                   prefix=["sh", "-c", script, "sh"], pass_fds=[listener.fileno()]) as pager:
            pager.ends(73)
            for name in ("theirs", "ours"):
                require(str(directory / name) in pager.output(), pager.output())


@check
def told_of_memory_whose_faults_never_come():
    """A machine that has not registered its memory, or sends something else, would read zeros."""
    def unregistered():
        return Memory(SIZE), Userfaultfd().number

    def not_negotiated():
        memory, uffd = registered(SIZE)
        uffd.fresh = Userfaultfd(negotiates=False)
        return memory, uffd.fresh.number

    def another():
        return registered(SIZE)[0], os.memfd_create("other")

    for make, complaint in ((unregistered, "not registered"), (not_negotiated, "UFFDIO_API"), (another, "is killed")):
        with serving_firecracker() as (pager, path, _):
            def body(end, make=make, path=path):
                memory, number = make()
                hand_over(path, firecracker_json((memory, 0)), [number])
                end.recv(1)

            with Machine(body) as machine:
                expect_end(machine, -signal.SIGKILL)
            pager.says(complaint)
            stops_with(pager, 1)


@check
def told_to_clients_of_the_handoff():
    """What the message says of the descriptor and of its memory file must be so."""
    def message(memory, features, flags, regions=1):
        return (struct.pack("<8sIIQII", b"UFFDHAND", 1, flags, features, regions, 0)
                + struct.pack("<4Q", memory.start, memory.count, 0, PAGE))

    with folder() as directory:
        source = memory_file(directory, SIZE)
        with Pager("handoff", "--socket", directory / "socket", "--memory", source) as pager:
            pager.says("listening")
            for features, size, complaint in ((FEATURE_EVENT_REMOVE | 1 << 7, 0, b"features"), (0, PAGE, f"memory file has {PAGE} bytes, and its regions need {SIZE}".encode())):
                def body(end, features=features, size=size):
                    file = os.memfd_create("memory")
                    os.truncate(file, SIZE)
                    memory, uffd = Memory(SIZE, file=file) if size else Memory(SIZE), Userfaultfd()
                    uffd.register(memory, MODE_MISSING)
                    os.truncate(file, size)
                    files = [uffd.number, file] if size else [uffd.number]
                    connection = hand_over(directory / "socket", message(memory, features, 3 if size else 1), files)
                    end.sendall(connection.recv(4096))

                with Machine(body) as machine:
                    reply = machine.word()
                    require(reply[:12] == struct.pack("<8sI", b"UFFDDONE", 1) and complaint in reply, f"the reply is {reply}")
                    expect_end(machine)
            stops_with(pager, 1)


@check
def told_of_memory_that_is_too_short():
    """By the file's name, its size, and what was needed; also if it was cut after the start, or ends within a page."""
    needed = f"bytes, and the client's regions need {SIZE}"
    for size in (0, PAGE, SIZE - 100):
        with serving_firecracker() as (pager, path, _):
            source = path.parent / "memory"
            os.truncate(source, size)
            end = stranded(path, lambda memory: firecracker_json((memory, 0)))
            require(end == -signal.SIGKILL, f"the machine ended with {end}")
            pager.says(f"{source} has {size} {needed}")
            stops_with(pager, 1)
    with folder() as directory:
        (directory / "empty").touch()
        empty = f"{directory}/empty is empty: 0 bytes, and the memory of a machine is needed"
        with Pager("serve", "--control", directory / "c") as pager:
            pager.says("ready")
            require(empty in ctl(directory / "c", "add", "m", "--socket", "/m", "--memory", directory / "empty", code=1), "it is added")
        found = run("handoff", "--socket", directory / "s", "--memory", directory / "empty")
        require(found.returncode == 66 and empty in found.stderr, f"{found.returncode}: {found.stderr}")


@check
def told_by_exit_codes_and_messages():
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        (directory / "empty").touch()
        (directory / "config").write_text("{")
        good = ("firecracker", "--socket", directory / "s", "--memory", memory)
        nbd = ("firecracker", "--socket", directory / "s", "--memory", "nbd://localhost:1/", "--cache-revision", "1")
        config = ("serve", "--control", directory / "c", "--config", directory / "config")
        long = directory / ("x" * 120)
        for arguments, code, text in (
                (("firecracker", "--socket", directory / "s", "--memory", directory / "empty"), 66, "is empty"),
                (("firecracker", "--socket", directory / "s", "--memory", "http://host/memory"), 64, "curl http://host/memory"),
                (("firecracker", "--socket", directory / "s", "--memory", "s3://host/memory"), 64, "nbd, nbds, nbd+unix or nbds+unix URI"),
                (("firecracker", "--socket", long, "--memory", memory), 73, "use a shorter one"),
                (("firecracker", "--socket", directory / "none/s", "--memory", memory), 73, "its folder does not exist"),
                (("firecracker", "--socket", memory, "--memory", memory), 73, "is not a socket; remove it"),
                (("serve", "--control", long), 73, "use a shorter one"),
                ((*good, "--tls-username", "me"), 64, "--tls-certificates, --tls-psk-file and --tls-username are for nbds"),
                ((*good, "--record", directory), 73, "Is a directory"),
                ((*nbd, "--cache", f"{directory}:0"), 64, "--cache"),
                ((*nbd, "--cache", f"{directory}:5X"), 64, "Usage: uffd-pager firecracker"),
                ((*good, "--cache-memory", "1M", "--cache-revision", "1"), 64, "uffd-pager firecracker"),
                (("ctl", "list", "--control", directory / "none"), 69, "does not answer: No such file or directory"),
                (("ctl", "list", "--control", long), 69, "longer than"),
                (("ctl", "list", "--control", directory / "none", "--timeout", "0"), 64, "--timeout"),
                (("ctl", "add", "m", "--control", directory / "none", "--socket", "s", "--memory", "m", "--allow-user", "nobody"),
                 69, "does not answer"),
                (("serve", "--control", directory / "c", "--max-restarts", "3"), 64, "--supervise"),
                (config, 66, "config: ")):
            found = run(*arguments)
            require(found.returncode == code and text in found.stderr, f"{arguments}: {found.returncode}, {found.stderr}")
        (directory / "config").write_text('{"machines": [\n  {"name": "a",, "x"}\n]}')
        require("config: this is not valid JSON, line 2, column 16: " in run(*config).stderr, run(*config).stderr)
        (directory / "config").write_text('{"maxSessions": 0}')
        require("line 1: maxSessions: " in run(*config).stderr, "another limit is named")
        with open("/dev/full", "w", encoding="ascii") as full:
            for arguments in (("--version",), ("--help",), ("firecracker", "--help")):
                require((found := run(*arguments, stdout=full)).returncode == 74, f"{arguments}: {found.returncode}")
        require(run("firecracker", "--help").stdout.count("USAGE: uffd-pager firecracker") == 1, "the usage is another's")
