"""uffd-pager as a service: what systemd passes and is told, privileges, units and the example configuration."""
import contextlib
import json
import os
import shutil
import socket
import subprocess

from firecracker import SIZE, serve_one
from harness import LIMIT, Pager, Skip, check, content, folder, memory_file, program, require, server_of

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CAP_KILL = 1 << 5


@contextlib.contextmanager
def as_service(directory, *arguments, is_stuck=False):
    """The program with a listening socket and a socket for notifications, as systemd starts it: a manager that is stuck
    takes none."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.settimeout(LIMIT)
    notify.bind(str(directory / "notify"))
    if is_stuck:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, contextlib.suppress(BlockingIOError):
            filler.setblocking(False)
            while True:
                filler.sendto(b".", str(directory / "notify"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "socket"))
    listener.listen()
    script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 NOTIFY_SOCKET={directory}/notify exec "$@"'
    with contextlib.closing(notify), contextlib.closing(listener):
        with Pager(*arguments, prefix=["sh", "-c", script, "sh"], pass_fds=[listener.fileno()]) as pager:
            yield pager, notify


@check
def service_takes_the_socket_and_tells_its_state():
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        arguments = ("firecracker", "--socket", directory / "socket", "--memory", memory)
        with as_service(directory, *arguments) as (pager, notify):
            require(notify.recv(100) == b"READY=1", "it is not ready")
            serve_one(directory / "socket", content(SIZE))
            pager.process.terminate()
            require(notify.recv(100) == b"STOPPING=1", "it does not tell that it stops")
            pager.ends(0)
        require((directory / "socket").exists(), "systemd's socket was removed")


@check
def service_beside_a_manager_that_is_stuck():
    """It is not told, and machines are served all the same."""
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        arguments = ("firecracker", "--socket", directory / "socket", "--memory", memory)
        with as_service(directory, *arguments, is_stuck=True) as (pager, _):
            pager.says("systemd cannot be told")
            serve_one(directory / "socket", content(SIZE))
            pager.process.terminate()
            pager.ends(0)
            pager.says("systemd cannot be told", 2)


@check
def service_gives_up_privileges():
    with folder() as directory:
        memory = memory_file(directory, SIZE)
        with Pager("firecracker", "--socket", directory / "socket", "--memory", memory) as pager:
            pager.says("listening")
            with open(f"/proc/{server_of(pager)}/status", encoding="ascii") as file:
                status = dict(line.split(":", 1) for line in file)
            for name in ("CapEff", "CapPrm", "CapInh"):
                require(int(status[name], 16) & ~CAP_KILL == 0, f"{name} is {status[name].strip()}")
            require(status["NoNewPrivs"].strip() == "1", "it may get new privileges")
            serve_one(directory / "socket", content(SIZE))


@check
def service_units():
    if not shutil.which("systemd-analyze"):
        raise Skip("needs systemd-analyze: install the package systemd")
    with folder() as directory:
        units = []
        for name in os.listdir(f"{REPO}/Scripts/package/systemd"):
            with open(f"{REPO}/Scripts/package/systemd/{name}", encoding="ascii") as file:
                text = file.read().replace("/usr/bin/uffd-pager", program())
            require(program() in text or name.endswith(".socket"), f"{name} starts something else")
            units.append(directory / name.replace("@", "@web"))
            units[-1].write_text(text)
            (directory / name).write_text(text)
        run = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True,
                             check=False, timeout=LIMIT)
        ours = [line for line in run.stderr.splitlines() if "uffd-pager" in line]
        require(not ours, f"systemd says: {ours}")


@check
def service_example_configuration():
    """The example is read: what is wrong with it is that its memory file is not here."""
    with folder() as directory:
        example = f"{REPO}/Scripts/package/uffd-pager.json"
        with Pager("serve", "--control", directory / "control", "--config", example) as pager:
            pager.ends(66)
            require("web.mem" in pager.output(), pager.output())
        with open(example, encoding="ascii") as file:
            document = json.load(file)
        memory_file(directory, SIZE)
        for machine in document["machines"]:
            machine["memory"] = str(directory / "memory")
            machine["socket"] = str(directory / machine["name"])
            machine["record"] = str(directory / f"{machine['name']}.set")
        (directory / "config").write_text(json.dumps(document))
        with Pager("serve", "--control", directory / "control", "--config", directory / "config") as pager:
            pager.says("ready")


@check
def service_package():
    """What is installed is whole, and the manual is what troff takes without a word."""
    with folder() as directory:
        subprocess.run([f"{REPO}/Scripts/package/uffd-pager.sh", directory], check=True, timeout=5 * LIMIT,
                       env=os.environ | {"UFFD_PAGER": program()})
        files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
        for name in ("usr/bin/uffd-pager", "usr/share/man/man1/uffd-pager.1",
                     "usr/share/bash-completion/completions/uffd-pager", "usr/lib/systemd/system/uffd-pager.service"):
            require(name in files, f"{name} is missing: {files}")
        subprocess.run(["bash", "-n", directory / "usr/share/bash-completion/completions/uffd-pager"], check=True)
        shown = subprocess.run([program(), "--help"], capture_output=True, text=True, check=True).stdout
        for command in ("firecracker", "handoff", "serve", "ctl", "probe"):
            require(command in shown and f"usr/share/man/man1/uffd-pager-{command}.1" in files, f"{command} has no page")
        if shutil.which("groff"):
            pages = sorted((directory / "usr/share/man/man1").iterdir())
            run = subprocess.run(["groff", "-man", "-ww", "-z", *pages], capture_output=True, text=True, check=True)
            require(not run.stderr, f"groff says: {run.stderr[:300]}")


@check
def service_probe_tells_of_every_client():
    def probe(*prefix):
        run = subprocess.run([*prefix, program(), "probe", "--json"], capture_output=True, text=True, timeout=LIMIT, check=False)
        return {verdict["client"]: verdict for verdict in json.loads(run.stdout)}

    verdicts = probe()
    require([*verdicts] == ["firecracker", "criu", "cloud-hypervisor", "handoff"], f"the clients are {[*verdicts]}")
    if os.geteuid() != 0:
        raise Skip("needs root")
    with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii") as file:
        if file.read().strip() == "1":
            raise Skip("needs vm.unprivileged_userfaultfd=0")
    # Without kernel-mode faults, it loads all memory first.
    verdict = probe("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")["cloud-hypervisor"]
    lack = next(lack for lack in verdict["lacks"] if lack["name"] == "kernel-mode-faults")
    require(verdict["isServed"] and "on demand" in lack["consequence"], f"it says {verdict}")
