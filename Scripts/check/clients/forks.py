"""Clients of uffd-pager whose userfaultfds report forks: their children's descriptors are the server's alone."""
import contextlib
import os
import signal

from firecracker import SIZE, hand_over
from handoff import handoff_message
from harness import Machine, Pager, becomes, check, children, content, folder, memory_file, require
from memory import FEATURE_EVENT_FORK, FEATURE_EVENT_REMOVE, PAGE, Memory, Userfaultfd
from survive import keeper_of, kill, next_server


def machine_that_forks(end, path, expected):
    """Says the numbers of a child and of its child, which have read a page, and wait; another runs another program."""
    memory, uffd = Memory(SIZE), Userfaultfd(FEATURE_EVENT_FORK | FEATURE_EVENT_REMOVE)
    uffd.register(memory)
    connection = hand_over(path, handoff_message([(memory.start, SIZE, 0)]), [uffd.number])
    require(connection.recv(100)[8:12] == bytes(4), "it is not served")

    def reads(page):
        require(memory.read(page * PAGE, 16) == expected[page * PAGE:page * PAGE + 16], "wrong bytes")

    reads(0)
    if (other := os.fork()) == 0:
        os.execvp("sleep", ["sleep", "600"])
    if os.fork() == 0:
        reads(1)
        child = os.fork()
        if child == 0:
            reads(2)
            end.sendall(f"{other} {os.getppid()} {os.getpid()}".encode())
        signal.pause()
    signal.pause()


def is_running(process):
    """Whether a process has not ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


@check
def survive_no_child_that_reads_zeros():
    for options in ((), ("--supervise",)):
        with folder() as directory:
            memory = memory_file(directory, SIZE)
            with Pager("handoff", "--socket", directory / "s", "--memory", memory, *options) as pager:
                pager.says("listening")
                with Machine(machine_that_forks, directory / "s", content(SIZE)) as machine:
                    other, *forked = map(int, machine.word().split())
                    try:
                        becomes(lambda: "sleep" in os.readlink(f"/proc/{other}/exe"), True, "whether it has another program")
                        kill(next_server(keeper_of(pager)) if options else children(pager.process.pid)[0])
                        require(machine.end() == -signal.SIGKILL, f"the machine ended with {machine.status}")
                        for child in forked:
                            becomes(lambda child=child: is_running(child), False, "whether a child runs")
                        require(is_running(other), "another program was killed")
                    finally:
                        for process in (other, *forked):
                            with contextlib.suppress(ProcessLookupError):
                                os.kill(process, signal.SIGKILL)
                if options:
                    pager.says("listening", 2)
                else:
                    pager.ends(70)
