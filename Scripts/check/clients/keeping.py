"""What the processes that keep the clients of uffd-pager do when they have no room, or do not answer in time."""
import contextlib
import os
import resource
import signal
import time

from firecracker import SIZE
from harness import Machine, Pager, check, content, expect_end, folder, memory_file, require
from successor import half_read, machine_in_two_steps, reads_the_rest
from survive import keeper_of, kill, next_server

LIMIT_OF_FILES = 256
# More than a keeper can hand on with so many open files.
MACHINES = 36


@contextlib.contextmanager
def supervised_firecracker(prefix=()):
    with folder() as directory:
        arguments = ("firecracker", "--supervise", "--socket", directory / "m", "--memory", memory_file(directory, SIZE))
        with Pager(*arguments, prefix=prefix) as pager:
            pager.says("listening")
            yield pager, directory / "m"


@check
def survive_no_more_clients_than_can_be_handed_on():
    with supervised_firecracker(("prlimit", f"--nofile={LIMIT_OF_FILES}:{LIMIT_OF_FILES}")) as (pager, path):
        machines = [Machine(machine_in_two_steps, path, content(SIZE)) for _ in range(MACHINES)]
        served = [machine for machine in machines if machine.word() == b"h"]
        refused = [machine for machine in machines if machine not in served]
        require(served and refused, f"{len(served)} machines are served, {len(refused)} refused")
        for machine in refused:
            expect_end(machine, -signal.SIGKILL)
        kill(next_server(keeper_of(pager)))
        for machine in served:
            reads_the_rest(machine)


@check
def survive_an_answer_that_comes_late():
    with supervised_firecracker() as (pager, path):
        server = next_server(keeper_of(pager))
        os.kill(pager.process.pid, signal.SIGSTOP)
        stranded = Machine(machine_in_two_steps, path, content(SIZE))
        try:
            # Its descriptors lie in the guard's socket when the server dies.
            end = time.monotonic() + 5
            while time.monotonic() < end and not waits_for_an_answer(server):
                time.sleep(0.01)
            kill(server)
        finally:
            os.kill(pager.process.pid, signal.SIGCONT)
        pager.says("listening", 2)
        before = resource.prlimit(pager.process.pid, resource.RLIMIT_NOFILE)
        # The guard has no room: the next client must be told so, whatever was answered before.
        resource.prlimit(pager.process.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        expect_end(Machine(machine_in_two_steps, path, content(SIZE)), -signal.SIGKILL)
        resource.prlimit(pager.process.pid, resource.RLIMIT_NOFILE, before)
        with half_read(path) as machine:
            reads_the_rest(machine)
        expect_end(stranded, -signal.SIGKILL)


def waits_for_an_answer(server):
    """Whether a thread of the server sleeps in recvmsg."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{server}/task"):
            with open(f"/proc/{server}/task/{thread}/wchan", encoding="ascii") as file:
                if "skb_wait" in file.read():
                    return True
    return False
