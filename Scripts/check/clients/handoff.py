"""Clients of this project's own protocol: the page of C, and its errors."""
import contextlib
import os
import struct
import subprocess

from harness import Pager, check, compile_c, content, folder, memory_file, require
from memory import PAGE


def handoff_message(regions, flags=1):
    """The message of this project's own protocol, for (address, bytes, offset)."""
    head = struct.pack("<8sIIQII", b"UFFDHAND", 1, flags, 0, len(regions), 0)
    return head + b"".join(struct.pack("<4Q", *region, PAGE) for region in regions)


@contextlib.contextmanager
def serving(size):
    """The program, its memory file, and what runs a client that prints so many bytes of it."""
    with folder() as directory:
        client, path = directory / "client", directory / "socket"
        compile_c(client, "Examples/handoff-client.c")
        memory = memory_file(directory, size)

        def read(count):
            return subprocess.run([client, path, str(count)], capture_output=True, check=False, timeout=60)

        with Pager("handoff", "--socket", path, "--memory", memory) as pager:
            pager.says("listening")
            yield pager, memory, read


def reads(run, expected):
    require(run.returncode == 0, f"the client ended with {run.returncode}: {run.stderr!r}")
    require(run.stdout == expected, "the client read other bytes")


def is_refused(run):
    require(run.returncode == 1 and b"not served" in run.stderr, f"no refusal: {run.returncode}, {run.stderr!r}")


@check
def handoff_page_of_c():
    size = 32 * PAGE
    with serving(size) as (pager, _, read):
        reads(read(size - 100), content(size)[:-100])
        pager.says(": ended ")
        is_refused(read(size + 1))


@check
def handoff_memory_file_that_is_replaced():
    size = 32 * PAGE
    with serving(size) as (_, memory, read):
        # One that is shorter, and would read as zeros.
        other = memory.with_name("other")
        other.write_bytes(b"x" * PAGE)
        os.replace(other, memory)
        reads(read(size), content(size))
        memory.unlink()
        reads(read(size), content(size))


@check
def handoff_memory_file_that_changes_its_length():
    size = 32 * PAGE
    with serving(size) as (_, memory, read):
        with memory.open("ab") as file:
            file.write(b"x" * PAGE)
        reads(read(size + PAGE), content(size) + b"x" * PAGE)
        os.truncate(memory, PAGE)
        is_refused(read(size))
        reads(read(PAGE), content(size)[:PAGE])
