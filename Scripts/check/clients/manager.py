"""A stand-in for systemd's manager: it starts a service, keeps its descriptors, and starts it again."""
import array
import contextlib
import os
import signal
import socket
import threading
import time

from harness import LIMIT, Logged, children, program, require


def descendants(process):
    found = children(process)
    return [*found, *(further for child in found for further in descendants(child))]


class Manager(Logged):
    """Does what sd_notify(3), sd_listen_fds(3) and systemd.service(5) say of Type=notify, FileDescriptorStoreMax=, and
    Restart=on-failure. A check says when the service must have ended.

    The store has room for so many descriptors, and drops what is too much. Before version 254, it does not say how many.
    The sockets of socket units, by their names, are passed at each start."""

    def __init__(self, directory, *arguments, room=4096, tells_room=True, sockets=()):
        self.room, self.tells_room, self.dropped = room, tells_room, 0
        # Whether messages are taken, and how many removals are lost.
        self.is_taking, self.lost_removals = threading.Event(), 0
        self.is_taking.set()
        self.path = str(directory / "notify")
        self.log = open(directory / "log", "w+", encoding="utf-8")
        self.arguments = [program(), *map(str, arguments)]
        self.store = {}
        self.sockets = [(name, listener.fileno()) for name, listener in sockets]
        self.lock = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()
        self.process = None
        self.start()

    def listen(self):
        while True:
            text, ancillary, flags, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC)
            numbers = array.array("i")
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    numbers.frombytes(data[:len(data) - len(data) % 4])
            self.is_taking.wait(LIMIT)
            words = dict(line.split("=", 1) for line in text.decode().splitlines())
            if "QUIT" in words:
                return
            with self.lock:
                if words.get("FDSTORE") == "1" and not flags & socket.MSG_CTRUNC:
                    # What is polled is dropped as soon as its process has ended.
                    require(words.get("FDPOLL") == "0", f"{words} is polled")
                    self.keep(words["FDNAME"], numbers)
                elif words.get("FDSTOREREMOVE") == "1":
                    if words["FDNAME"] in self.store and self.lost_removals > 0:
                        self.lost_removals -= 1
                        continue
                    for number in self.store.pop(words["FDNAME"], []):
                        os.close(number)
                else:
                    for number in numbers:
                        os.close(number)

    def keep(self, name, numbers):
        for number in numbers:
            if sum(map(len, self.store.values())) < self.room:
                self.store.setdefault(name, []).append(number)
            else:
                self.dropped += 1
                os.close(number)

    def quit(self):
        """Waits until all that was sent is taken: messages are taken one after the other."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as own:
            own.connect(self.path)
            own.sendall(b"QUIT=1")
        self.thread.join(LIMIT)
        require(not self.thread.is_alive(), "the stand-in hangs")

    def drain(self):
        self.quit()
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def start(self):
        with self.lock:
            # In whatever order: the store promises none.
            stored = [(name, number) for name in reversed(self.store) for number in reversed(self.store[name])]
            passed = self.sockets + stored
        self.process = os.fork()
        if self.process:
            return
        with contextlib.suppress(OSError):
            # Away from the numbers that the service expects, first.
            first = 1000
            files = [os.open(os.devnull, os.O_RDONLY), self.log.fileno(), self.log.fileno()]
            sources = [os.dup2(number, first + index) for index, number in enumerate(
                files + [number for _, number in passed])]
            for index, number in enumerate(sources):
                os.dup2(number, index)
                os.close(number)
            environment = os.environ | {"NOTIFY_SOCKET": self.path}
            if self.tells_room:
                environment["FDSTORE"] = str(self.room)
            if passed:
                environment |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(passed)),
                                "LISTEN_FDNAMES": ":".join(name for name, _ in passed)}
            os.execve(self.arguments[0], self.arguments, environment)
        os._exit(99)

    def ends(self, code):
        end = time.monotonic() + LIMIT
        while True:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                break
            require(time.monotonic() < end, f"the service does not end: {self.output()[-500:]}")
            time.sleep(0.002)
        self.process = None
        status = os.waitstatus_to_exitcode(status)
        require(status == code, f"exit code {status} in place of {code}: {self.output()[-500:]}")

    def starts_again(self, code):
        self.ends(code)
        self.drain()
        self.start()

    def stop(self):
        os.kill(self.process, signal.SIGTERM)
        self.ends(0)
        self.drain()

    def forgets(self, prefix):
        """Waits until nothing is kept under names that begin so."""
        end = time.monotonic() + LIMIT
        while True:
            with self.lock:
                found = [name for name in self.store if name.startswith(prefix)]
            if not found:
                return
            require(time.monotonic() < end, f"the store has {found}")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(self.output()[-2000:])
        if self.process:
            # The whole service, as systemd does: a server goes on without its guard.
            for process in (self.process, *descendants(self.process)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        self.quit()
        for number in sum(self.store.values(), []):
            os.close(number)
        self.socket.close()
        self.log.close()
