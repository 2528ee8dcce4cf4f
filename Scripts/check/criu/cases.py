"""What is tested with pages in images: each case raises Trouble if it fails."""
import ctypes
import os
import random
import select
import signal
import socket
import struct
import subprocess
import time

import client
from harness import LIMIT, Daemon, Host, Trouble, case, expect, read, wait_until
from images import LAZY, Pagemap, move_to_parent

KINDS = {"heap": (1, 64), "family": (4, 16), "churn": (1, None), "sparse": (1, 4)}
WORDS = {"heap": "one task of 64 MiB", "family": "four tasks of 16 MiB each", "churn": "a task that maps and unmaps",
         "sparse": "a page in each MiB of 4 GiB"}


class Dumps:
    """A dump of each kind, made when it is first wanted."""

    def __init__(self, host):
        self.host, self.made = host, {}

    def __getitem__(self, kind):
        if kind not in self.made:
            tasks, size = KINDS[kind]
            self.made[kind] = self.host.dump(kind, tasks, size)
        return self.made[kind]


def restored(host, dump, *options):
    """Restores with our daemon; everything must go well."""
    daemon = host.lazy_pages(dump, *options).ready()
    try:
        host.restore(dump)
        dump.go()
        code = host.reap(dump)
        ended = daemon.wait()
        wait_until(lambda: all(dump.results()), "the results of all processes", 10)
    finally:
        daemon.kill()
        host.kill_tasks(dump)
    expect(code == 0 and all(result.startswith("ok ") for result in dump.results()), f"{code}: {dump.results()}")
    expect(ended.code == 0, f"the daemon ended with {ended.code}: {ended.output}")
    expect(" pages " in ended.output and ended.output.count("\n") == 1, f"the daemon said: {ended.output}")
    expect(not os.path.exists(daemon.socket), "the socket is still there")
    return ended


@case
def heap(host, dumps):
    restored(host, dumps["heap"])


@case
def family(host, dumps):
    restored(host, dumps["family"])


@case
def churn(host, dumps):
    restored(host, dumps["churn"])


@case
def sparse(host, dumps):
    restored(host, dumps["sparse"])


@case
def incremental(host, dumps):
    dump = dumps["heap"].copy()
    parent = os.path.join(dump.images, "before")
    os.mkdir(parent)
    move_to_parent(dump.images, dump.task, parent)
    os.symlink("before", os.path.join(dump.images, "parent"))
    restored(host, dump)


@case
def work_folder(host, dumps):
    dump = dumps["heap"].copy()
    work = os.path.join(dump.images, "work")
    os.mkdir(work)
    command = [host.pager, "criu-lazy-pages", "-D", dump.images, "-W", work]
    daemon = Daemon(command, work).ready()
    try:
        dump.forget_results()
        host.run_criu("restore", dump.images, "-W", work, "--lazy-pages", "-d")
        dump.go()
        expect(host.reap(dump) == 0 and daemon.wait().code == 0, f"{dump.results()}, {daemon.wait().output}")
    finally:
        daemon.kill()
        host.kill_tasks(dump)


@case
def real_page_server(host, _):
    """A lazy dump, whose tasks stay where they are until all pages were fetched: restored in a namespace of its own."""
    limit = "/proc/sys/fs/pipe-max-size"
    before = read(limit)
    dump = host.start("heap", 1, 8)
    # Nobody's at this moment.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = daemon = None
    try:
        # criu dump --lazy-pages wants a pipe that has room for the largest piece of memory.
        with open(limit, "w", encoding="ascii") as file:
            file.write(str(16 << 20))
        log = os.path.join(dump.images, "dump.log")
        server = subprocess.Popen(
            [host.criu, "dump", "-D", dump.images, "-t", str(dump.task), "--lazy-pages", "--address", "127.0.0.1"]
            + ["--port", str(port), "-v4", "-o", log], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: "Starting page server" in read(log), "the page server")
        wait_until(lambda: f" 0100007F:{port:04X} 00000000:0000 0A " in read("/proc/net/tcp"), "the page server's port")
        daemon = host.lazy_pages(dump, "--page-server", f"127.0.0.1:{port}").ready()
        dump.go()
        restore = f'"$0" restore -D "$1" --lazy-pages -d -v2 -o restore.log && while kill -0 {dump.task}; do sleep 0.02; done'
        subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", restore, host.criu, dump.images],
            check=True, timeout=LIMIT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ended = daemon.wait()
        expect(ended.code == 0, f"the daemon ended with {ended.code}: {ended.output}")
        expect(dump.results() == ["ok 2048"], f"{dump.results()}")
        expect(server.wait(LIMIT) == 0, f"criu dump: {read(log)[-300:]}")
    finally:
        with open(limit, "w", encoding="ascii") as file:
            file.write(before)
        for process in (daemon, server):
            if process:
                process.kill()
        host.kill_tasks(dump)


@case
def damaged_images(host, dumps):
    task = dumps["heap"].task
    damages = {
        f"pages-1.img": lambda path: os.truncate(path, os.path.getsize(path) - 1),
        f"pagemap-{task}.img": lambda path: os.truncate(path, os.path.getsize(path) - 1),
        f"mm-{task}.img": lambda path: os.truncate(path, os.path.getsize(path) // 2),
        "inventory.img": lambda path: os.truncate(path, 10),
        "pstree.img": lambda path: os.truncate(path, 2),
    }
    for name, damage in damages.items():
        for action in (damage, os.unlink):
            dump = dumps["heap"].copy()
            action(os.path.join(dump.images, name))
            daemon = host.lazy_pages(dump).ready()
            end = client_end(daemon, hand_over(dumps["heap"])) if os.path.exists(daemon.socket) else None
            ended = daemon.wait()
            expect(ended.code == 1 and name in ended.output, f"{name}: {ended.code}: {ended.output}")
            expect(end in (None, -signal.SIGKILL), f"{name}: a task that nobody serves ended with {end}")


def client_end(daemon, body):
    """Runs a client in a process of its own, which the daemon may kill; returns how it ended."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            body(client.Client(daemon.socket))
            code = 0
        finally:
            os._exit(code)
    try:
        ended = wait_until(lambda: Host.end(child), "the client's end")
    except Trouble:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(ended[1])


def hand_over(dump, then=lambda peer, address: time.sleep(LIMIT)):
    """A client that hands a page over as the dump's task, where this has one, and then does something else."""
    path = os.path.join(dump.images, f"pagemap-{dump.task}.img")
    address = next(address for address, _, flags in Pagemap(path).runs if flags & LAZY)

    def body(peer):
        peer.name(dump.task)
        uffd = client.userfaultfd()
        client.map_at(address)
        peer.send_descriptor(uffd)
        client.register(uffd, address)
        os.close(uffd)
        then(peer, address)

    return body


def touch(peer, address):
    peer.close()
    if ctypes.string_at(address, 1) == b"\0":
        os._exit(0)
    time.sleep(LIMIT)


@case
def restore_fails(host, dumps):
    """criu restore dies before all tasks are restored: those that are do not go on with zeros."""
    dump = dumps["heap"]
    daemon = host.lazy_pages(dump).ready()
    end = client_end(daemon, hand_over(dump, touch))
    ended = daemon.wait()
    expect(ended.code == 1 and "hung up" in ended.output, f"{ended.code}: {ended.output}")
    expect(end == -signal.SIGKILL, f"the task ended with {end}")


@case
def peers_that_break_the_protocol(host, dumps):
    dump = dumps["heap"]
    task = struct.pack("<i", dump.task)
    unknown = struct.pack("<i", dump.task + 1)
    for what, bytes_sent, message in [
        ("nothing", b"", "hung up"), ("half a word", task[:2], "hung up"), ("no descriptor", task + b"\0", "no userfaultfd"),
        ("no process id", b"\0\0\0\0", "not a process id"), ("another task", unknown + b"\0", "no userfaultfd"),
        ("a task without memory that was not dumped", struct.pack("<i", -dump.task - 1), "not in the images"),
        ("the same task twice", struct.pack("<i", -dump.task) * 2, "named twice"),
        ("garbage", random.Random(2).randbytes(1 << 20), "malformed"),
    ]:
        daemon = host.lazy_pages(dump).ready()
        client_end(daemon, lambda peer, data=bytes_sent: peer.send(data))
        ended = daemon.wait()
        expect(ended.code == 1 and message in ended.output, f"{what}: {ended.code}: {ended.output}")


@case
def descriptor_of_another_kind(host, dumps):
    dump = dumps["heap"]

    def body(peer):
        peer.name(dump.task)
        peer.send_descriptor(0)
        peer.socket.recv(1)

    daemon = host.lazy_pages(dump).ready()
    client_end(daemon, body)
    ended = daemon.wait()
    expect(ended.code == 1, f"{ended.code}: {ended.output}")


@case
def task_that_ends(host, dumps):
    """A task that has ended while its pages come is no failure."""
    dump = dumps["heap"]

    def end(peer, address):
        # Whoever gets a page is known to the daemon.
        ctypes.string_at(address, 1)
        peer.restored()
        peer.close()
        os._exit(0)

    daemon = host.lazy_pages(dump).ready()
    client_end(daemon, hand_over(dump, end))
    ended = daemon.wait()
    expect(ended.code == 0, f"{ended.code}: {ended.output}")


@case
def status_descriptor(host, dumps):
    """The descriptor that criu's own daemon tells its readiness by."""
    dump = dumps["heap"]
    reader, writer = os.pipe()
    # Three, as container runtimes pass it: this program passes its own descriptors from there on.
    script = f'exec 3>&{writer} {writer}>&-; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", host.pager, "criu-lazy-pages", "-D", dump.images, "--status-fd", "3"],
        pass_fds=[writer], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(writer)
    try:
        expect(os.read(reader, 2) == b"\0", "the daemon did not say that it is ready")
        # Nobody else has it.
        ready, _, _ = select.select([reader], [], [], LIMIT)
        expect(ready and os.read(reader, 1) == b"", "somebody keeps the descriptor open")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT)
        expect(process.returncode == 1 and b"stopped" in output, f"{process.returncode}: {output}")
    finally:
        process.kill()
        process.wait()
        os.close(reader)


@case
def usage(host, _):
    for options in (["-D", "/nowhere"], []):
        ended = subprocess.run([host.pager, "criu-lazy-pages", *options], check=False, timeout=LIMIT, capture_output=True, text=True)
        expect(ended.returncode == (1 if options else 64) and ended.stderr, f"{options}: {ended.returncode}: {ended.stderr}")
