"""Working sets that uffd-pager firecracker records, and loads first."""
import contextlib
import os
import subprocess

from firecracker import SIZE, compare_one, hand_over, serve_one, serving
from harness import Machine, Pager, Skip, check, expect_end, firecracker_json, folder, registered, require
from memory import PAGE
from serve import ctl
from serve import serving as serving_many


@check
def firecracker_prefetch_and_record():
    """A recorded run is replayed while faults of the same pages come."""
    with folder() as directory:
        record = directory / "set"
        for options in (("--record", record), ("--prefetch", record), ("--populate",)):
            with serving(*options) as (pager, path, expected):
                serve_one(path, expected)
                pager.says(": ended ")
        require(record.read_bytes().startswith(b"UFFDWSET"), "no working set was recorded")
        record.write_bytes(record.read_bytes()[:-1])
        with Pager("firecracker", "--socket", directory / "s", "--memory", record, "--prefetch", record) as pager:
            pager.ends(66)


def machine_that_touches(end, path, pages, expected):
    memory, uffd = registered(SIZE)
    connection = hand_over(path, firecracker_json((memory, 0)), [uffd.number])
    for page in pages:
        compare_one(memory, page, expected)
    end.sendall(b"r")
    end.recv(1)
    connection.close()


@check
def firecracker_record_of_several_machines():
    """The pages of all are in the record: those of the last one that ended first."""
    with folder() as directory:
        record = directory / "set"
        with serving("--record", record) as (pager, path, expected):
            require(not record.exists() and not list(directory.iterdir()), "there is a record before a machine has ended")
            with Machine(machine_that_touches, path, [3, 1, 9], expected) as first, \
                    Machine(machine_that_touches, path, [7, 1], expected) as second:
                for number, machine in enumerate((first, second), 1):
                    require(machine.word() == b"r", "a machine failed")
                    machine.tell()
                    expect_end(machine)
                    pager.says(": ended ", number)
        found = record.read_bytes()[24:]
        pages = [int.from_bytes(found[at:at + 8], "little") // PAGE for at in range(0, len(found), 8)]
        require(pages == [7, 1, 3, 9], f"the record has the pages {pages}")
        require(list(directory.iterdir()) == [record], f"files are left: {list(directory.iterdir())}")
        with Pager("firecracker", "--socket", directory / "s", "--memory", record, "--record",
                   directory / "nothing/set") as pager:
            pager.ends(73)


@contextlib.contextmanager
def small_disk(directory):
    """A file system of its own, below a folder."""
    image, place = directory / "image", directory / "disk"
    image.write_bytes(b"")
    os.truncate(image, 16 << 20)
    place.mkdir()
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, place]):
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Skip(f"needs {command[0]}") from None
        if run.returncode != 0:
            raise Skip(f"{command[0]}: {run.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def that_hangs(place):
    subprocess.run(["fsfreeze", "-f", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", place], check=True)


@check
def firecracker_record_on_a_disk_that_hangs():
    """Machines end, and others are served in their places, while nothing can be written."""
    with folder() as directory, small_disk(directory) as place:
        with serving("--record", place / "set", "--max-machines", "1") as (pager, path, expected):
            with that_hangs(place):
                for number in range(1, 4):
                    serve_one(path, expected)
                    pager.says(": ended ", number)
            pager.process.terminate()
            pager.ends(0)
        require((place / "set").read_bytes().startswith(b"UFFDWSET"), "no working set was recorded")


@check
def serve_refuses_a_record_of_another_machine():
    with serving_many() as (_, directory, control):
        (directory / "link").symlink_to(directory)

        def add(name, record, code=0):
            return ctl(control, "add", name, "--socket", directory / name, "--memory", directory / "memory", "--record", record,
                       code=code)

        add("a", directory / "set")
        for record in (directory / "set", directory / "link/set", f"{directory}/./set"):
            require("machine 'a'" in add("b", record, code=1), "two machines write one record")
        add("b", directory / "other")
        ctl(control, "remove", "a")
        add("c", directory / "set")
