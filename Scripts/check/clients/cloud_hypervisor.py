"""A simulator of Cloud Hypervisor v53 against uffd-pager cloud-hypervisor: it sends a machine, and takes one back."""
import contextlib
import json
import os
import socket
import struct
import threading

from harness import LIMIT, Pager, check, connect, content, folder, require
from memory import PAGE

START, CONFIG, STATE, MEMORY, COMPLETE, ABANDON, MEMORY_FD, COMPLETE_PAUSED, PAGE_FAULT = range(1, 10)
OK, ERROR = 1, 2
FAULT_ROLE = 2
STATE_BYTES = b'{"device":"state"}' * 5000

# Two slots that share a zone's file, as they do around the hole below 4 GiB, and one in a file of its own.
SLOTS = [(0, 0, 64 * PAGE, 0), (1, 1 << 32, 32 * PAGE, 64 * PAGE), (5, 8 << 30, 16 * PAGE, 0)]


def config(slots=None):
    mappings = [{"slot": slot, "gpa": gpa, "size": size, "zone_id": "mem0", "virtio_mem": False, "file_offset": offset}
                for slot, gpa, size, offset in (SLOTS if slots is None else slots)]
    return json.dumps({"vm_config": {"cpus": {"boot_vcpus": 1}}, "common_cpuid": [{"function": 0}],
                       "memory_manager_data": {"memory_zones": {}, "guest_ram_mappings": mappings}}).encode()


def header(code, length=0, version=0):
    return struct.pack("<HHIQ", code, version, 0, length)


def exactly(connection, count):
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        require(more, f"the connection ended after {len(found)} of {count} bytes")
        found += more
    return found


def answer(connection):
    code, _, _, length = struct.unpack("<HHIQ", exactly(connection, 16))
    require(length == 0, f"an answer with {length} bytes")
    return code


def memory_of(slot):
    """What a slot holds: every fourth page is a hole."""
    number, _, size, _ = next(entry for entry in SLOTS if entry[0] == slot)
    data = bytearray(content(size + number * PAGE)[number * PAGE:])
    for page in range(0, size // PAGE, 4):
        data[page * PAGE:(page + 1) * PAGE] = bytes(PAGE)
    return bytes(data)


def fill(file, slot):
    _, _, size, offset = next(entry for entry in SLOTS if entry[0] == slot)
    data = memory_of(slot)
    for page in range(size // PAGE):
        part = data[page * PAGE:(page + 1) * PAGE]
        if any(part):
            os.pwrite(file, part, offset + page * PAGE)


class Sender:
    """Cloud Hypervisor while it sends a machine: each step can be left out or spoilt."""

    def __init__(self, path):
        self.connection = connect(path)
        self.connection.settimeout(LIMIT)

    def ask(self, code, payload=b"", length=None, version=0):
        message = header(code, len(payload) if length is None else length, version) + payload
        with contextlib.suppress(BrokenPipeError):
            self.connection.sendall(message)
        return answer(self.connection)

    def memory(self, slot, file):
        self.connection.sendall(header(MEMORY_FD, 4))
        socket.send_fds(self.connection, [struct.pack("<I", slot)], [file])
        return answer(self.connection)

    def files(self):
        """Sends the memory, filled."""
        zone, own = os.memfd_create("zone"), os.memfd_create("own")
        os.ftruncate(zone, 96 * PAGE)
        os.ftruncate(own, 16 * PAGE)
        for slot, file in ((0, zone), (1, zone), (5, own)):
            fill(file, slot)
            require(self.memory(slot, file) == OK, f"slot {slot} is refused")
        os.close(zone)
        os.close(own)

    def send(self, paused=True):
        require(self.ask(START) == OK, "the start is refused")
        self.files()
        require(self.ask(CONFIG, config()) == OK, "the configuration is refused")
        require(self.ask(STATE, STATE_BYTES) == OK, "the state is refused")
        return self.ask(COMPLETE_PAUSED if paused else COMPLETE)


def saving(path, output, *options):
    return Pager("cloud-hypervisor", "snapshot", "--socket", path, "--output-dir", output, *options)


def save(directory):
    """Saves the machine, by the program."""
    output = directory / "machine"
    output.mkdir()
    with saving(directory / "save", output) as pager:
        pager.says("listening")
        require(Sender(directory / "save").send() == OK, "the end is refused")
        pager.ends(0)
    return output


@check
def cloud_hypervisor_snapshot():
    with folder() as directory:
        output = save(directory)
        require((output / "migration_config.json").read_bytes() == config(), "another configuration")
        require((output / "state.json").read_bytes() == STATE_BYTES, "another state")
        for slot, _, size, _ in SLOTS:
            path = output / f"memory-{slot}"
            require(path.read_bytes() == memory_of(slot), f"slot {slot} has other bytes")
            require(path.stat().st_blocks * 512 < size, "holes were filled")
            require(path.stat().st_mode & 0o77 == 0, "others may read the memory")
        require({path.name for path in output.iterdir()}
                == {"migration_config.json", "state.json", *(f"memory-{slot}" for slot, *_ in SLOTS)},
                f"files: {list(output.iterdir())}")
        # A machine is there already, nothing is there, and that is no folder.
        for place in (output, directory / "nothing", output / "state.json"):
            with saving(directory / "again", place) as pager:
                pager.ends(73)


@check
def cloud_hypervisor_folder_that_is_moved():
    """What is at the path by the time that a machine comes is another folder."""
    with folder() as directory:
        output, moved = directory / "machine", directory / "moved"
        output.mkdir()
        with saving(directory / "save", output) as pager:
            pager.says("listening")
            output.rename(moved)
            output.mkdir()
            require(Sender(directory / "save").send() == OK, "the end is refused")
            pager.ends(0)
        require(not list(output.iterdir()), "the machine is in another folder")
        require((moved / "state.json").read_bytes() == STATE_BYTES, "another state")


@check
def cloud_hypervisor_malformed_snapshots():
    """What breaks the protocol is refused, and nothing that can be restored is left."""
    def started(sender):
        require(sender.ask(START) == OK, "the start is refused")

    def configured(sender):
        started(sender)
        sender.files()
        require(sender.ask(CONFIG, config()) == OK, "the configuration is refused")

    def refused(*arguments, before=lambda sender: None, **options):
        def play(sender):
            before(sender)
            require(sender.ask(*arguments, **options) == ERROR, f"{arguments} are not refused")
        return play

    def without_descriptor(sender):
        started(sender)
        require(sender.ask(MEMORY_FD, struct.pack("<I", 0)) == ERROR, "a slot without a file is not refused")

    def short_file(sender):
        started(sender)
        file = os.memfd_create("short")
        os.ftruncate(file, PAGE)
        for slot in (0, 1, 5):
            require(sender.memory(slot, file) == OK, "a slot is refused")
        require(sender.ask(CONFIG, config()) == OK and sender.ask(STATE, b"x") == OK, "the machine is refused")
        require(sender.ask(COMPLETE) == ERROR, "memory that is too short is not refused")

    def twice(sender):
        started(sender)
        file = os.memfd_create("twice")
        require(sender.memory(0, file) == OK, "a slot is refused")
        require(sender.memory(0, file) == ERROR, "a slot that comes twice is not refused")

    def abandoned(sender):
        started(sender)
        require(sender.ask(ABANDON) == OK, "giving up is not answered")

    def silent(sender):
        sender.connection.sendall(header(START)[:7])

    plays = [
        refused(0), refused(99), refused(CONFIG, b"{}"), refused(START, length=1), refused(START, version=7),
        refused(PAGE_FAULT, bytes(16)), refused(MEMORY, before=started), refused(STATE, b"x", before=started),
        refused(COMPLETE, before=configured), refused(CONFIG, config(), before=configured),
        refused(CONFIG, b"", length=1 << 40, before=started), refused(CONFIG, b"{", before=started),
        refused(CONFIG, config(), before=started), refused(CONFIG, config([]), before=started),
        refused(CONFIG, config([(0, 1, PAGE, 0)]), before=started),
        refused(CONFIG, config([(0, 0, 1 << 63, 0)]), before=started),
        refused(CONFIG, config([(0, 0, 2 * PAGE, 0), (1, PAGE, PAGE, 0)]), before=started),
        without_descriptor, short_file, twice, abandoned, silent,
    ]
    with folder() as directory:
        output = directory / "machine"
        output.mkdir()
        for number, play in enumerate(plays):
            with saving(directory / str(number), output) as pager:
                pager.says("listening")
                sender = Sender(directory / str(number))
                play(sender)
                sender.connection.close()
                pager.ends(1)
            require(not (output / "state.json").exists(), f"play {number} left a machine")


class Receiver:
    """Cloud Hypervisor while it waits for a machine, in a thread of its own."""

    def __init__(self, path, faults=None, refuse=None):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(LIMIT)
        self.faults, self.refuse = faults, refuse
        self.files, self.seen, self.wrong = {}, [], []
        self.thread = threading.Thread(target=self.guarded)
        self.thread.start()

    def guarded(self):
        try:
            self.receive()
        except Exception as error:  # pylint: disable=broad-except
            self.wrong.append(error)

    def receive(self):
        connection, _ = self.listener.accept()
        connection.settimeout(LIMIT)
        while not self.seen or self.seen[-1] not in (COMPLETE, COMPLETE_PAUSED):
            code, _, _, length = struct.unpack("<HHIQ", exactly(connection, 16))
            self.seen.append(code)
            if code == MEMORY_FD:
                payload, files, _, _ = socket.recv_fds(connection, 4, 2)
                self.files[struct.unpack("<I", payload)[0]] = files[0]
            else:
                payload = exactly(connection, length)
            if code == CONFIG:
                require(payload == config(), "another configuration")
            if code == STATE:
                require(payload == STATE_BYTES, "another state")
                if self.faults:
                    self.faults(self)
            connection.sendall(header(ERROR if code == self.refuse else OK))
            if code == self.refuse:
                return
        connection.close()

    def fault_connection(self):
        connection, _ = self.listener.accept()
        connection.settimeout(LIMIT)
        require(struct.unpack("<H", exactly(connection, 2))[0] == FAULT_ROLE, "another role")
        return connection

    def page(self, slot, page):
        offset = SLOTS[[entry[0] for entry in SLOTS].index(slot)][3]
        return os.pread(self.files[slot], PAGE, offset + page * PAGE)

    def ends(self):
        self.thread.join(LIMIT)
        require(not self.thread.is_alive(), "the simulator hangs")
        self.listener.close()
        if self.wrong:
            raise self.wrong[0]


def restoring(directory, *options):
    return Pager("cloud-hypervisor", "restore", "--socket", directory / "restore", "--input-dir", directory / "machine",
                 *options)


def request(connection, slot, page, pages=1):
    gpa = next(entry[1] for entry in SLOTS if entry[0] == slot)
    connection.sendall(header(PAGE_FAULT, 16) + struct.pack("<QQ", gpa + page * PAGE, pages * PAGE))
    return answer(connection)


@check
def cloud_hypervisor_restore():
    with folder() as directory:
        save(directory)
        for options, last in (((), COMPLETE_PAUSED), (("--resume",), COMPLETE)):
            receiver = Receiver(directory / "restore")
            with restoring(directory, *options) as pager:
                pager.ends(0)
            receiver.ends()
            require(receiver.seen == [START, *[MEMORY_FD] * 3, CONFIG, STATE, last], f"{receiver.seen} came")
            for slot, _, size, _ in SLOTS:
                found = b"".join(receiver.page(slot, page) for page in range(size // PAGE))
                require(found == memory_of(slot), f"slot {slot} has other bytes")
            os.unlink(directory / "restore")


@check
def cloud_hypervisor_on_demand():
    """Pages come when they are asked for, once: not again over what the guest has written, and not after it gave them back."""
    with folder() as directory:
        save(directory)

        def faults(receiver):
            connection = receiver.faults_at = receiver.fault_connection()
            for slot, page, pages in ((0, 1, 1), (0, 63, 1), (1, 0, 4), (5, 2, 14)):
                require(receiver.page(slot, page) == bytes(PAGE), "a page is there before it was asked for")
                require(request(connection, slot, page, pages) == OK, "no page")
                for index in range(page, page + pages):
                    expected = memory_of(slot)[index * PAGE:(index + 1) * PAGE]
                    require(receiver.page(slot, index) == expected, f"page {index} of slot {slot} is wrong")
            os.pwrite(receiver.files[0], b"written", PAGE)
            require(request(connection, 0, 1) == OK, "no page")
            require(receiver.page(0, 1)[:7] == b"written", "a page was loaded over what was written")
            # As a balloon does: what was given back is zeros. Python has no fallocate() that makes holes.
            os.ftruncate(receiver.files[5], 15 * PAGE)
            os.ftruncate(receiver.files[5], 16 * PAGE)
            require(request(connection, 5, 15) == OK, "no page")
            require(receiver.page(5, 15) == bytes(PAGE), "a page that was given back has its old content")

        receiver = Receiver(directory / "restore", faults)
        with restoring(directory, "--on-demand", "--resume") as pager:
            receiver.ends()
            # The machine runs, and goes on asking.
            require(request(receiver.faults_at, 0, 7) == OK, "no page after the end")
            require(receiver.page(0, 7) == memory_of(0)[7 * PAGE:8 * PAGE], "a page is wrong after the end")
            receiver.faults_at.close()
            pager.ends(0)


@check
def cloud_hypervisor_malformed_restores():
    with folder() as directory:
        save(directory)

        def wrong(send):
            def faults(receiver):
                connection = receiver.fault_connection()
                connection.sendall(send)
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    require(connection.recv(16) in (b"", header(ERROR)), "nonsense is answered")
                connection.close()
            return faults

        def ends(receiver, *options):
            with restoring(directory, *options) as pager:
                pager.ends(1)
            receiver.listener.close()
            receiver.thread.join(LIMIT)
            os.unlink(directory / "restore")

        for code in (START, MEMORY_FD, CONFIG, STATE, COMPLETE_PAUSED):
            ends(Receiver(directory / "restore", refuse=code))
        for nonsense in (header(STATE), header(PAGE_FAULT, 8), b"\xff" * 16, header(PAGE_FAULT, 16)[:9],
                         header(PAGE_FAULT, 16) + struct.pack("<QQ", 1 << 40, PAGE),
                         header(PAGE_FAULT, 16) + struct.pack("<QQ", 1, PAGE),
                         header(PAGE_FAULT, 16) + struct.pack("<QQ", 0, 0),
                         header(PAGE_FAULT, 16) + struct.pack("<QQ", 63 * PAGE, 2 * PAGE)):
            ends(Receiver(directory / "restore", wrong(nonsense)), "--on-demand")
        # A page that cannot be loaded is an error for Cloud Hypervisor, which ends the machine.
        os.truncate(directory / "machine/memory-5", 15 * PAGE)
        with restoring(directory) as pager:
            pager.ends(66)
        os.unlink(directory / "machine/state.json")
        with restoring(directory) as pager:
            pager.ends(66)


@check
def cloud_hypervisor_lost_page():
    with folder() as directory:
        save(directory)

        def faults(receiver):
            connection = receiver.fault_connection()
            os.truncate(directory / "machine/memory-5", PAGE)
            require(request(connection, 5, 3) == ERROR, "a page that is lost is answered")
            require(request(connection, 0, 3) == OK, "another page is lost too")
            connection.close()

        receiver = Receiver(directory / "restore", faults)
        with restoring(directory, "--on-demand") as pager:
            pager.ends(1)
            require("1 pages could not be loaded" in pager.output(), pager.output())
        receiver.ends()
