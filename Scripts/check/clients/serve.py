"""Many machines in one process, over the control socket: uffd-pager serve and ctl."""
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time

from firecracker import SIZE, compare_one, hand_over, machine_that_reads, serve_one
from harness import (LIMIT, REPO, Machine, Pager, Skip, becomes, check, compare, content, expect_end, firecracker_json, folder,
                     memory_file, program, registered, require, server_of)


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("uffd-pager", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def ask(path, method, target, body=None):
    """The status and the body, as JSON if it is."""
    connection = Connection(path)
    connection.request(method, target, None if body is None else body if isinstance(body, bytes) else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    is_json = answer.headers.get_content_type() == "application/json"
    return answer.status, json.loads(text) if is_json and text else text


def ctl(path, *arguments, code=0):
    run = subprocess.run([program(), "ctl", *map(str, arguments), "--control", path], capture_output=True, text=True,
                         check=False, timeout=60)
    require(run.returncode == code, f"ctl {arguments} ended with {run.returncode}: {run.stderr}")
    return run.stdout if code == 0 else run.stderr


@contextlib.contextmanager
def serving(*options, prefix=()):
    """The program, its folder and its control socket."""
    with folder() as directory:
        control = directory / "control"
        memory_file(directory, SIZE)
        with Pager("serve", "--control", control, *options, prefix=prefix) as pager:
            pager.says("ready")
            yield pager, directory, control


def is_served(control, name):
    """Waits until a machine has a session: its first pages may come before the session is in the table."""
    becomes(lambda: json.loads(ctl(control, "show", name))["state"], "serving", f"the state of {name}")


@check
def serve_many_machines():
    expected = content(SIZE)
    with serving() as (pager, directory, control):
        for index in range(8):
            ctl(control, "add", f"m{index}", "--socket", directory / f"m{index}", "--memory", directory / "memory",
                "--record", directory / f"set{index}")
        machines = json.loads(ctl(control, "list"))["machines"]
        require([m["state"] for m in machines] == ["waiting"] * 8, f"states: {machines}")
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(Machine(machine_that_reads, directory / f"m{index}", expected))
                       for index in range(8)]
            for machine in running:
                require(machine.word() == b"r", "a machine could not read")
            is_served(control, "m3")
            shown = json.loads(ctl(control, "show", "m3"))
            require(shown["sessions"][0]["process"] == running[3].process, shown)
            becomes(lambda: json.loads(ctl(control, "show", "m3"))["totals"]["filledBytes"], SIZE, "what is filled")
            for machine in running:
                machine.tell()
                expect_end(machine)
        pager.says(": ended ", 8)
        shown = json.loads(ctl(control, "show", "m3"))
        require(shown["state"] == "waiting" and shown["totals"]["filledBytes"] == SIZE, f"the sums are lost: {shown}")
        ctl(control, "remove", "m3")
        require("no machine" in ctl(control, "show", "m3", code=1), "a machine that was removed is there")
        require(not (directory / "m3").exists(), "the socket is left")
        becomes((directory / "set4").exists, True, "whether there is a record")
        status, _ = ask(control, "POST", "/v1/machines/m4/prefetch", {"workingSet": str(directory / "set4")})
        require(status == 200, f"prefetch answered {status}")


def threads_of(process):
    """The names of a process' threads."""
    names = []
    for thread in os.listdir(f"/proc/{process}/task"):
        # One that ends meanwhile is none.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{process}/task/{thread}/comm", encoding="ascii") as file:
                names.append(file.read().strip())
    return names


@check
def serve_many_machines_with_the_threads_of_few():
    few, many = 4, 64
    expected = content(SIZE)
    with serving() as (pager, directory, control), contextlib.ExitStack() as stack:
        server = server_of(pager)

        def start(indices):
            for index in indices:
                status, answer = ask(control, "POST", "/v1/machines", {
                    "name": f"m{index}", "socket": str(directory / f"m{index}"), "memory": str(directory / "memory")})
                require(status == 201, f"{status}: {answer}")
            machines = [stack.enter_context(Machine(machine_that_reads, directory / f"m{index}", expected))
                        for index in indices]
            for machine in machines:
                require(machine.word() == b"r", "a machine could not read")

        start(range(few))
        # Swift's pool has a thread a processor at most, and not all from the beginning.
        before = len(threads_of(server)) + os.cpu_count()
        start(range(few, many))
        # Threads that took a machine over may still be at their end.
        end = time.monotonic() + LIMIT
        while len(threads_of(server)) > before:
            require(time.monotonic() < end, f"more than {before} threads: {sorted(threads_of(server))}")
            time.sleep(0.01)


@check
def serve_populate_and_drain():
    expected = content(SIZE)
    with serving() as (pager, directory, control):
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")

        def body(end):
            memory, uffd = registered(SIZE)
            hand_over(directory / "m", firecracker_json((memory, 0)), [uffd.number])
            compare_one(memory, 0, expected)
            end.sendall(b"r")
            end.recv(1)
            compare(memory, expected)

        for verb in ("populate", "drain"):
            with Machine(body) as machine:
                require(machine.word() == b"r", "the machine failed")
                is_served(control, "m")
                require(json.loads(ctl(control, verb, "m", "--seconds", "60")) == {"sessions": 1}, "no session")
                state = json.loads(ctl(control, "show", "m"))
                require(state["state"] == ("serving" if verb == "populate" else "waiting"), f"{verb}: {state}")
                machine.tell()
                expect_end(machine)
            pager.says(": ended ", 1 if verb == "populate" else 2)


@check
def serve_removes_by_killing():
    expected = content(SIZE)
    with serving() as (_, directory, control):
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
        with Machine(machine_that_reads, directory / "m", expected) as machine:
            require(machine.word() == b"r", "the machine could not read")
            is_served(control, "m")
            ctl(control, "remove", "m", "--ending", "kill")
            require(machine.end() == -9, f"the machine ended with {machine.status}")


@check
def serve_refuses_bad_requests():
    with serving() as (_, directory, control):
        good = {"name": "m", "socket": str(directory / "m"), "memory": str(directory / "memory")}
        pipe = str(directory / "pipe")
        os.mkfifo(pipe)
        for body, status in ((b"{", 400), (b"[]", 400), ({}, 400), ({**good, "colour": 1}, 400),
                             ({**good, "name": "a/b"}, 400), ({**good, "name": ".."}, 400), ({**good, "onFailure": "zero"}, 400),
                             ({**good, "retries": -1}, 400), ({**good, "retries": 1001}, 400), ({**good, "retries": "1"}, 400),
                             ({**good, "checksums": ""}, 400), ({**good, "checksums": "/nowhere"}, 422),
                             ({**good, "cacheRevision": "x" * 900}, 400),
                             ({**good, "socketMode": "9"}, 400), ({**good, "socket": ""}, 400),
                             ({**good, "socket": f"{directory}/m\0x"}, 400), ({**good, "record": ""}, 400),
                             ({**good, "memory": pipe}, 422), ({**good, "prefetch": pipe}, 422), ({**good, "memory": "/nowhere"}, 422),
                             ({**good, "socket": "/nowhere/m"}, 422), ({**good, "prefetch": "/dev/null"}, 422),
                             (good, 201), (good, 409), (b"x" * 100000, 413)):
            found, answer = ask(control, "POST", "/v1/machines", body)
            require(found == status, f"{body} is answered {found} in place of {status}: {answer}")
            require(found == 201 or answer["error"], f"{body} is refused without a word")
        for method, target, status in (("GET", "/v1/machines/none", 404), ("DELETE", "/v1/machines/none", 404),
                                       ("POST", "/v1/machines/m/drain?seconds=x", 400), ("GET", "/nothing", 404),
                                       ("DELETE", "/v1/machines/m?ending=never", 400), ("GET", "/healthz", 200),
                                       ("PUT", "/v1/machines", 404)):
            found, answer = ask(control, method, target)
            require(found == status, f"{method} {target} is answered {found} in place of {status}: {answer}")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as raw:
            raw.connect(str(control))
            raw.sendall(b"\0\1\2 garbage\r\n\r\n")
            raw.recv(1000)
        require(ask(control, "GET", "/healthz")[0] == 200, "garbage has ended the server")


@check
def serve_openapi_names_every_path():
    with serving() as (_, _, control):
        status, document = ask(control, "GET", "/openapi.json")
        require(status == 200 and document["openapi"] == "3.1.0", "no description")
        names = set(document["components"]["schemas"]["Specification"]["properties"])
        with folder() as directory:
            path = directory / "m"
            full = {"name": "full", "socket": str(path), "memory": program(), "format": "handoff", "onFailure": "kill",
                    "populate": True, "allowUsers": [0], "allowGroups": [0], "socketMode": "0660",
                    "record": str(directory / "r"), "prefetch": None, "cacheRevision": None,
                    "retries": 5, "checksums": None,
                    "tlsCertificates": None, "tlsPskFile": None, "tlsUsername": None}
            require(names == set(full), f"described, but not known: {names ^ set(full)}")
            status, answer = ask(control, "POST", "/v1/machines", full)
            require(status == 201, f"{status}: {answer}")
            require(path.stat().st_mode & 0o777 == 0o660, "the permissions of the socket are others")


@check
def serve_metrics():
    if not shutil.which("promtool"):
        raise Skip("needs promtool: install the package prometheus")
    filled = f'uffd_pager_filled_bytes_total{{machine="m"}} {SIZE}\n'
    with serving("--cache-memory", "1M") as (pager, directory, control):
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
        with Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
            require(machine.word() == b"r", "the machine could not read")
            becomes(lambda: filled in ctl(control, "metrics"), True, "that all bytes are counted")
            text = ctl(control, "metrics")
            machine.tell()
            expect_end(machine)
        lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        require(lint.returncode == 0, f"promtool: {lint.stdout}{lint.stderr}")
        pager.says(": ended ")
        require(filled in ctl(control, "metrics"), "a counter went back")


@check
def serve_counters_never_fall():
    """What a session has counted is in the sums of its machine while it ends, too."""
    def filled():
        _, text = ask(control, "GET", "/metrics")
        return int(next(line for line in text.splitlines() if line.startswith("uffd_pager_filled_bytes_total")).split()[1])

    with serving() as (pager, directory, control):
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory")
        most = 0
        for number in range(1, 21):
            with Machine(machine_that_reads, directory / "m", content(SIZE)) as machine:
                require(machine.word() == b"r", "the machine could not read")
                machine.tell()
                while pager.output().count(": ended ") < number:
                    require((found := filled()) >= most, f"the counter has fallen from {most} to {found}")
                    most = found
                expect_end(machine)
        becomes(filled, 20 * SIZE, "the sum of all sessions")


@check
def serve_configuration_file():
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        config = directory / "config"
        machine = {"name": "a", "socket": str(directory / "a"), "memory": str(memory)}
        config.write_text(json.dumps({"machines": [machine], "maxSessions": 1}))
        with Pager("serve", "--control", directory / "control", "--config", config) as pager:
            pager.says("ready")
            with Machine(machine_that_reads, directory / "a", content(SIZE)) as first:
                require(first.word() == b"r", "the machine could not read")
                # One that cannot be told that it is not served would wait for ever.
                with Machine(machine_that_reads, directory / "a", content(SIZE)) as second:
                    require(second.end() == -9, "more sessions than the limit")
        for text, complaint in (("{", "config"), ('{"machine": []}', "not known"), ('{"machines": [{"name": "a"}]}', "missing"),
                                ('{"maxSessions": 0}', "1 to 100000")):
            config.write_text(text)
            with Pager("serve", "--control", directory / "control", "--config", config) as pager:
                pager.ends(66)
                require(complaint in pager.output(), f"{text}: {pager.output()}")
        config.write_text(json.dumps({"machines": [{**machine, "memory": str(directory / "nothing")}]}))
        for path in (config, directory / "nope"):
            with Pager("serve", "--control", directory / "control", "--config", path) as pager:
                pager.ends(66)
                text = pager.output()
                require("cannot be read: No such file or directory" in text and "NSError" not in text, text)


@check
def serve_complaints_about_the_configuration():
    """They name the line, the key, and what was expected."""
    good = '"name": "a",\n"socket": "s",\n"memory": "m"'
    with folder() as directory:
        config = directory / "config"
        for text, complaint in (
                ('[]', "line 1: this must be an object in { }"),
                ('{"maxSessions": 1,\n"machine": []}',
                 "line 2: machine: this key is not known; the known ones are machines, maxMachines, maxSessions, maxSessionsPerProcess"),
                ('{"maxSessions":\n"x"}', "line 1: maxSessions: this must be a number"),
                ('{"maxMachines": 1.5}', "line 1: maxMachines: this must be a whole number from 1 to 100000"),
                ('{"maxMachines": 99999999999999999999999}', "maxMachines: this must be a whole number"),
                ('{"machines": {}}', "machines: this must be a list in [ ]"),
                ('{"machines":\n[null]}', "line 2: machines[0]: this must be an object in { }, and not null"),
                ('{"machines": [\n{"name": "a", "memory": "m"}]}', "line 2: machines[0]: the key 'socket' is missing"),
                ('{"machines": [\n{"name": 3}]}', "line 2: machines[0].name: this must be a text in quotes"),
                (f'{{"machines": [{{{good},\n"extra": 1}}]}}', "line 4: machines[0].extra: this key is not known"),
                (f'{{"machines": [{{{good},\n"populate": 1}}]}}', "line 4: machines[0].populate: this must be true or false"),
                (f'{{"machines": [{{{good},\n"format": "x"}}]}}',
                 'line 4: machines[0].format: "x" is not one of "firecracker", "handoff"'),
                (f'{{"machines": [{{{good},\n"allowUsers": [-1]}}]}}',
                 "line 4: machines[0].allowUsers: this must be a whole number from 0 to 4294967295")):
            config.write_text(text)
            with Pager("serve", "--control", directory / "control", "--config", config) as pager:
                pager.ends(66)
                require(f"uffd-pager: {config}: " in pager.output() and complaint in pager.output(), f"{text}: {pager.output()}")


@check
def serve_configuration_is_documented():
    """Each key that is read is in the manual, in pagers.md, and in the description of the control socket, and no other."""
    def known(target, body):
        status, answer = ask(control, "POST", target, body)
        require(status == 400, f"{status}: {answer}")
        return set(re.search("the known ones are (.*)", answer["error"])[1].split(", "))

    with serving() as (_, directory, control):
        machine = known("/v1/machines", {"x": 1})
        described = ask(control, "GET", "/openapi.json")[1]["components"]["schemas"]["Specification"]["properties"]
        require(set(described) == machine, f"openapi.json: {set(described) ^ machine}")
        config = directory / "config"
        config.write_text('{"x": 1}')
        with Pager("serve", "--control", directory / "other", "--config", config) as pager:
            pager.ends(66)
            file = set(re.search("the known ones are (.*)", pager.output())[1].split(", "))
    manual = subprocess.run([program(), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    page = (REPO / "docs/pagers.md").read_text().split("The configuration is an object in JSON.")[1]
    for keys, part, table in ((file, "Keys of the configuration file", 0), (machine, "Keys of each machine", 1)):
        found = set(re.findall(r"^  (\w+): ", manual.split(part)[1].split("\n\n")[0], re.MULTILINE))
        require(found == keys, f"the manual: {found ^ keys}")
        rows = page.split("|---|---|\n")[table + 1].split("\n\n")[0].splitlines()
        found = {key for row in rows for key in re.findall("`([^`]+)`", row.split(" | ")[0])}
        require(found == keys, f"pagers.md: {found ^ keys}")


@check
def serve_relative_paths():
    """ctl is where its user is, and the server elsewhere."""
    with serving() as (_, directory, control):
        arguments = ("add", "m", "--socket", "m", "--memory", "memory", "--control", control)
        subprocess.run([program(), "ctl", *arguments], check=True, capture_output=True, timeout=60, cwd=directory)
        serve_one(directory / "m", content(SIZE))


@check
def serve_logs_json():
    with folder() as directory:
        log = directory / "log"
        with Pager("serve", "--control", directory / "control", "--log-format", "json", log=log) as pager:
            pager.says("ready")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        require(lines and all({"time", "level", "message"} <= set(line) for line in lines), lines)
