"""Memory whose pages uffd-pager compares with checksums."""
import os
import signal
import struct
import subprocess

from firecracker import SIZE, machine_that_reads, serve_one
from harness import LIMIT, Machine, Pager, check, content, expect_end, folder, memory_file, program, require
from memory import PAGE
from serve import ctl
from serve import serving as serving_many
from survive import SharedMemory

# Which page is damaged.
PLACE = SIZE // 2


def run(*arguments):
    return subprocess.run([program(), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=LIMIT)


def write_checksums(memory, place):
    written = run("checksums", memory, "--output", place)
    require(written.returncode == 0, written.stderr)


def damage(memory):
    with open(memory, "r+b") as file:
        file.seek(PLACE + 100)
        file.write(b"damaged")


def crc32c(content):
    value = 0xffffffff
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
    return value ^ 0xffffffff


@check
def checksums_are_as_documented():
    with folder() as directory:
        memory, sums = memory_file(directory, 3 * PAGE - 100), directory / "sums"
        write_checksums(memory, sums)
        pages = memory.read_bytes() + bytes(100)
        expected = [crc32c(pages[place:place + PAGE]) for place in range(0, len(pages), PAGE)]
        require(list(struct.unpack("<3I", sums.read_bytes())) == expected, "the checksums are others")
        for arguments, code in (((directory / "none", "--output", sums), 66), (("/dev/null", "--output", sums), 66),
                                ((memory, "--output", directory / "none" / "sums"), 73), ((memory,), 64)):
            failed = run("checksums", *arguments)
            require(failed.returncode == code, f"{arguments}: {failed.returncode}: {failed.stderr}")


@check
def checksums_of_a_file():
    """A page that differs is a failure, and the log says which."""
    with folder() as directory:
        memory, sums, path = memory_file(directory, SIZE), directory / "sums", directory / "m"
        write_checksums(memory, sums)
        arguments = ("firecracker", "--socket", path, "--memory", memory, "--checksums", sums)
        with Pager(*arguments) as pager:
            pager.says("listening")
            serve_one(path, content(SIZE))
            damage(memory)
            with Machine(machine_that_reads, path, content(SIZE)) as machine:
                expect_end(machine, -signal.SIGBUS)
            pager.says(f"the page at byte {PLACE} is not the one of its checksum")
            pager.process.terminate()
            pager.ends(1)
        # Of another memory, and no checksums.
        for content_of_sums, complaint in ((sums.read_bytes()[4:], f"has {SIZE // PAGE - 1} checksums"), (b"", "has 0 bytes"),
                                           (b"abc", "has 3 bytes"), (None, "cannot be read")):
            sums.unlink(missing_ok=True)
            if content_of_sums is not None:
                sums.write_bytes(content_of_sums)
            with Pager(*arguments) as pager:
                pager.ends(66)
                require(complaint in pager.output(), pager.output())


@check
def checksums_of_many_machines():
    """In the configuration of a machine, and with a memory file, whose pages are compared before they are there."""
    with serving_many() as (pager, directory, control):
        memory, sums = directory / "memory", directory / "sums"
        write_checksums(memory, sums)
        damage(memory)
        for kind in ("firecracker", "handoff"):
            ctl(control, "add", kind, "--socket", directory / kind, "--memory", memory, "--checksums", sums, "--retries", "0",
                "--format", kind)

        def shared(end):
            client = SharedMemory(directory / "handoff", SIZE)
            end.sendall(b"r" if client.memory.read(0, PAGE) == content(SIZE)[:PAGE] else b"?")
            client.memory.read(PLACE)
            os._exit(98)

        for body in (lambda end: machine_that_reads(end, directory / "firecracker", content(SIZE)), shared):
            with Machine(body) as machine:
                expect_end(machine, -signal.SIGBUS)
        pager.says(": ended ", 2)
        require(pager.output().count("is not the one of its checksum") == 2, pager.output())
        pager.process.terminate()
        pager.ends(1)


@check
def retries_of_a_page():
    """As many as the operator says."""
    with folder() as directory:
        memory, path = memory_file(directory, SIZE), directory / "m"
        for retries in (0, 2, 5):
            memory.write_bytes(content(SIZE))
            sums = directory / "sums"
            write_checksums(memory, sums)
            damage(memory)
            with Pager("firecracker", "--socket", path, "--memory", memory, "--checksums", sums, "--retries", retries) as pager:
                pager.says("listening")
                with Machine(machine_that_reads, path, content(SIZE)) as machine:
                    expect_end(machine, -signal.SIGBUS)
                pager.says(f"retries={retries} ")
        for wrong in ("-1", "1001", "x"):
            with Pager("firecracker", "--socket", path, "--memory", memory, f"--retries={wrong}") as pager:
                pager.ends(64)
