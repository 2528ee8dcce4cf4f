"""Who may connect to uffd-pager, and how many connections to its control socket there may be."""
import contextlib
import os
import shutil
import signal
import struct
import subprocess

from cloud_hypervisor import saving
from firecracker import serve_one
from firecracker import serving as serving_firecracker
from harness import LIMIT, Machine, Pager, Skip, check, connect, expect_end, folder, program, require, server_of
from memory import LIBC, answer
from serve import ask, ctl, serving

# A user and a group that are not the server's.
STRANGER = 65534


def as_stranger(path, send=b"", times=1):
    """What a process of another user and group hears at a socket, which sends this, or nothing, each time."""
    if os.geteuid() != 0:
        raise Skip("needs root")
    run = subprocess.run(
        ["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups", "python3", "-c", f"""
import contextlib, socket
for _ in range({times}):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout({LIMIT})
    s.connect({str(path)!r})
    with contextlib.suppress(BrokenPipeError):
        s.sendall({send!r})
    with contextlib.suppress(ConnectionError):
        print(s.recv(1000).decode())"""], capture_output=True, text=True, check=False, timeout=2 * LIMIT)
    require(run.returncode == 0, run.stderr)
    return run.stdout


def ctl_of_stranger(*arguments):
    """How ctl ends for another user and group, and what it says."""
    if os.geteuid() != 0:
        raise Skip("needs root")
    run = subprocess.run(
        ["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups", program(), "ctl", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=LIMIT)
    return run.returncode, run.stdout + run.stderr


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@check
def access_strangers_are_sent_away_at_once():
    """A peer that is not allowed keeps no connection to the control socket, whether it sends a request or not."""
    with serving("--socket-mode", "666") as (_, _, control):
        for send in (b"", REQUEST):
            require(" 403 " in as_stranger(control, send), "a stranger is not refused")


@check
def access_ctl_tells_who_is_allowed():
    """Whether the server answers before it has the request, or after that, and resets the connection."""
    with serving("--socket-mode", "666", "--allow-user", "4711") as (pager, directory, control):
        for arguments in 20 * [("list",), ("add", "m", "--socket", directory / "m", "--memory", directory / "memory")]:
            code, text = ctl_of_stranger(*arguments, "--control", control)
            require(code == 77, f"exit code {code}: {text}")
            require(f"user {STRANGER} " in text and "only user 0, 4711;" in text and "--allow-user" in text, text)
        pager.says("warning: a request at the control socket was refused")
        lines = pager.output().count("was refused")
        # Of forty. One line comes in ten seconds, and the machine may be slow.
        require(lines < 20 and f"user {STRANGER} " in pager.output(), f"{lines} lines: {pager.output()}")
    with serving("--socket-mode", "600") as (_, directory, control):
        code, text = ctl_of_stranger("list", "--control", control)
        require(code == 77 and "--socket-mode" in text and "mode 0600" in text, f"exit code {code}: {text}")
        directory.chmod(0o700)
        code, text = ctl_of_stranger("list", "--control", control)
        require(code == 77 and "cannot enter its folder" in text, f"exit code {code}: {text}")


@check
def access_group_alone():
    """Naming a group lets its users in, and locks nobody out of the control socket who could do everything anyway."""
    options = ("--allow-group", STRANGER, "--socket-mode", "0666")
    with serving(*options) as (_, _, control):
        require(" 200 " in as_stranger(control, REQUEST), "a user of the group is refused")
        require(ask(control, "GET", "/healthz")[0] == 200, "root is refused")
    with serving_firecracker(*options) as (pager, path, _):
        as_stranger(path, b"garbage")
        pager.says("malformed")
        with contextlib.closing(connect(path)) as connection:
            require(connection.recv(1) == b"", "another group is not refused")
        pager.says("not allowed")


@check
def access_socket_mode():
    """Sockets have the permissions that are asked for, whatever the umask."""
    prefix = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    with serving("--socket-mode", "0666", prefix=prefix) as (_, directory, control):
        require(control.stat().st_mode & 0o777 == 0o666, "the control socket has others")
        ctl(control, "add", "m", "--socket", directory / "m", "--memory", directory / "memory", "--socket-mode", "660")
        require((directory / "m").stat().st_mode & 0o777 == 0o660, "a machine's socket has others")
    with serving_firecracker("--socket-mode", "666", prefix=prefix) as (_, path, _):
        require(path.stat().st_mode & 0o777 == 0o666, "the socket has others")


@check
def access_connections_to_the_control_socket():
    """Connections without a request are closed after a while, and there are not more than 256."""
    with serving() as (pager, _, control), contextlib.ExitStack() as stack:
        server = server_of(pager)
        before = len(os.listdir(f"/proc/{server}/fd"))
        silent = [stack.enter_context(contextlib.closing(connect(control))) for _ in range(400)]
        ctl(control, "list")
        after = len(os.listdir(f"/proc/{server}/fd"))
        require(after - before <= 256, f"{after} descriptors after {before}")
        silent[0].settimeout(LIMIT)
        require(silent[0].recv(1) == b"", "a silent connection stays open")


@check
def access_no_moment_with_other_permissions():
    """The control socket has its permissions when it comes to its path."""
    create, changed = 0x100 | 0x80, 0x4
    with folder() as directory, contextlib.closing(os.fdopen(answer(LIBC.inotify_init1(os.O_NONBLOCK)), "rb", 0)) as events:
        answer(LIBC.inotify_add_watch(events.fileno(), os.fsencode(directory), create | changed))
        control = directory / "control"
        with Pager("serve", "--control", control, "--socket-mode", "0600") as pager:
            pager.says("ready")
            found, at = events.read(1 << 16), 0
            seen = []
            while at < len(found):
                _, mask, _, count = struct.unpack_from("iIII", found, at)
                seen.append((mask, found[at + 16:at + 16 + count].rstrip(b"\0")))
                at += 16 + count
            require(any(mask & create and name == b"control" for mask, name in seen), f"no event: {seen}")
            require(all(name != b"control" for mask, name in seen if mask & changed), f"its permissions change: {seen}")
            require(control.stat().st_mode & 0o777 == 0o600, "it has others")
        require(list(directory.iterdir()) == [], f"{list(directory.iterdir())} are left")


@check
def access_strangers_fill_no_log():
    """Who may connect and is not allowed can do so as often as he likes."""
    with serving_firecracker("--socket-mode", "666") as (pager, path, expected):
        for _ in range(4):
            as_stranger(path, times=100)
        serve_one(path, expected)
        lines = pager.output().count("is not allowed to connect")
        # Of four hundred. One line comes in ten seconds, and the machine may be slow.
        require(0 < lines < 50, f"{lines} lines: {pager.output()[-500:]}")


@check
def access_peers_that_have_ended():
    """One that has ended before it is accepted says nothing about others."""
    with serving_firecracker() as (pager, path, expected):
        server = server_of(pager)
        os.kill(server, signal.SIGSTOP)
        for _ in range(20):
            with Machine(lambda _: connect(path)) as machine:
                expect_end(machine)
        os.kill(server, signal.SIGCONT)
        serve_one(path, expected)
        require("can be accepted" not in pager.output(), pager.output()[-500:])


@check
def access_socket_mode_of_a_machine_that_is_saved():
    with folder() as directory:
        (directory / "machine").mkdir()
        with saving(directory / "save", directory / "machine", "--socket-mode", "0612") as pager:
            pager.says("listening")
            mode = (directory / "save").stat().st_mode & 0o777
            require(mode == 0o612, f"the mode is {mode:o}")


@check
def access_who_listens_at_a_path():
    """The command that the second one names finds the first."""
    if not shutil.which("ss"):
        raise Skip("needs ss: install the package iproute2")
    with serving_firecracker() as (first, path, _), Pager(
            "firecracker", "--socket", path, "--memory", path.with_name("memory")) as second:
        second.ends(73)
        command = second.output().partition("stop it ('")[2].partition("'")[0]
        found = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=LIMIT).stdout
        lines = [line for line in found.splitlines() if f"pid={server_of(first)}," in line]
        require(lines and str(path.parent) in lines[0] and path.name in lines[0], f"'{command}' finds {found}")
