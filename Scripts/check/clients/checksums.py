"""Memory whose pages uffd-pager compares with checksums."""
import os
import signal
import struct
import subprocess
from pathlib import Path

from firecracker import SIZE, machine_that_reads, serve_one
from harness import LIMIT, Machine, Pager, becomes, check, content, expect_end, folder, memory_file, program, require
from memory import PAGE
from record import small_disk, that_hangs
from serve import ctl
from serve import serving as serving_many
from survive import SharedMemory

# Which page is damaged.
PLACE = SIZE // 2


def run(*arguments):
    return subprocess.run([program(), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=LIMIT)


def start(*arguments):
    return subprocess.Popen([program(), *map(str, arguments)], stdin=subprocess.DEVNULL)


def becomes_stuck(process):
    """Waits until it waits for a disk."""
    becomes(lambda: "State:\tD" in Path(f"/proc/{process.pid}/status").read_text(), True, "whether it waits for the disk")


def write_checksums(memory, place, *options):
    written = run("checksums", memory, "--output", place, *options)
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
def checksums_of_holes():
    """They are not read."""
    with folder() as directory:
        memory, sums = directory / "memory", directory / "sums"
        with open(memory, "wb") as file:
            for place in (3 * PAGE + 100, (1 << 30) - 200):
                file.seek(place)
                file.write(content(100))
        writer = start("checksums", memory, "--output", sums)
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        counts = dict(line.split(": ") for line in Path(f"/proc/{writer.pid}/io").read_text().splitlines())
        require(writer.wait(LIMIT) == 0, "no checksums were written")
        require(int(counts["rchar"]) < 64 << 20, f"{counts['rchar']} bytes were read")
        zeros, found = struct.pack("<I", crc32c(bytes(PAGE))), sums.read_bytes()
        first = struct.pack("<I", crc32c(bytes(100) + content(100) + bytes(PAGE - 200)))
        last = struct.pack("<I", crc32c(bytes(PAGE - 200) + content(100) + bytes(100)))
        pages = (1 << 30) // PAGE
        require(found == 3 * zeros + first + (pages - 5) * zeros + last, "the checksums are others")


@check
def checksums_that_are_interrupted():
    """The file is as it was, and nothing else is left: also if the disk hangs just then."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with folder() as directory, small_disk(directory) as place:
            memory, sums = memory_file(directory, SIZE), place / "sums"
            sums.write_bytes(b"old")
            before = sorted(os.listdir(place))
            with that_hangs(place):
                run_that_waits = start("checksums", memory, "--output", sums)
                becomes_stuck(run_that_waits)
                run_that_waits.send_signal(number)
            require(run_that_waits.wait(LIMIT) == -number, f"it ended with {run_that_waits.returncode}")
            require(sorted(os.listdir(place)) == before, f"there are {os.listdir(place)}")
            require(sums.read_bytes() == b"old", "the file has changed")


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
