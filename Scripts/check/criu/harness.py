"""Dumps tasks with real CRIU, and restores them lazily with one daemon or another."""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from images import process_ids

LIMIT = 60
PR_SET_CHILD_SUBREAPER = 36


CASES = []


def case(function):
    """Makes a function, which gets the host and the dumps, one of the tests."""
    CASES.append(function)
    return function


class Trouble(Exception):
    """Why a case has failed."""


def adopt_orphans():
    """Makes restored tasks children of this process, once `criu restore` has gone: their ends can be waited for."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def wait_until(condition, what, limit=LIMIT):
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Trouble(f"{what}: not within {limit} s")
        time.sleep(0.005)
    return value


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Dump:
    """The images of a task that was dumped, and what its processes write."""

    def __init__(self, folder, kind, tasks):
        self.folder, self.kind, self.tasks = folder, kind, tasks
        self.images = os.path.join(folder, "images")
        self.files = os.path.join(folder, "files")
        self.task = 0

    @property
    def root(self):
        return int(read(os.path.join(self.files, "ready.0")))

    def all_tasks(self):
        """The process ids in the images."""
        return process_ids(os.path.join(self.images, "pstree.img"))

    def results(self):
        return [read(os.path.join(self.files, f"result.{number}")).strip() for number in range(self.tasks)]

    def forget_results(self):
        for name in os.listdir(self.files):
            if name == "go" or name.startswith("result"):
                os.unlink(os.path.join(self.files, name))

    def go(self):
        open(os.path.join(self.files, "go"), "w", encoding="utf-8").close()

    def copy(self):
        """The same dump with images of its own, to be changed."""
        other = Dump(self.folder, self.kind, self.tasks)
        other.task = self.task
        other.images = tempfile.mkdtemp(dir=self.folder)
        shutil.copytree(self.images, other.images, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.socket"))
        return other


class Ended:
    """How a program has ended, and what it took."""

    def __init__(self, code, output, seconds, kilobytes):
        self.code, self.output, self.seconds, self.kilobytes = code, output, seconds, kilobytes


class Daemon:
    """A program that serves lazy pages."""

    def __init__(self, command, images):
        self.socket = os.path.join(images, "lazy-pages.socket")
        if os.path.lexists(self.socket):
            os.unlink(self.socket)
        self.start = time.monotonic()
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, cwd=images, stdout=self.output, stderr=subprocess.STDOUT)
        self.ended, self.kilobytes = None, 0

    def _look(self):
        if self.ended is None:
            # What wait4 tells is at least what this process had when it forked.
            words = re.findall(r"VmHWM:\s+(\d+)", read(f"/proc/{self.process.pid}/status"))
            self.kilobytes = max([self.kilobytes, *map(int, words)])
            pid, status = os.waitpid(self.process.pid, os.WNOHANG)
            if pid:
                self.output.seek(0)
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.ended = Ended(self.process.returncode, self.output.read(), time.monotonic() - self.start, self.kilobytes)
        return self.ended

    def ready(self):
        wait_until(lambda: os.path.exists(self.socket) or self._look(), "the daemon's socket")
        return self

    def wait(self):
        return wait_until(self._look, "the daemon's end")

    def kill(self, number=signal.SIGKILL):
        if not self._look():
            self.process.send_signal(number)


class Host:
    """Programs, and a folder for what the tests make."""

    def __init__(self, criu, pager, dumpee, folder):
        self.criu, self.pager, self.dumpee, self.folder = criu, pager, dumpee, folder

    def start(self, kind, tasks=1, size=None):
        """Starts a task that is to be dumped."""
        dump = Dump(tempfile.mkdtemp(prefix=kind, dir=self.folder), kind, tasks)
        os.mkdir(dump.images)
        os.mkdir(dump.files)
        command = [self.dumpee, kind, dump.files] + ([str(size)] if size else [])
        subprocess.run(command, check=True, timeout=LIMIT)
        ready = [os.path.join(dump.files, f"ready.{number}") for number in range(tasks)]
        wait_until(lambda: all(map(os.path.exists, ready)), f"{kind} is ready")
        dump.task = dump.root
        return dump

    def dump(self, kind, tasks=1, size=None):
        dump = self.start(kind, tasks, size)
        self.run_criu("dump", dump.images, "-t", str(dump.task))
        self.reap(dump)
        return dump

    def reap(self, dump):
        """Waits for the end of all tasks; returns how the first has ended, as subprocess does."""
        first, *others = dump.all_tasks()
        code = self._reap(first)
        for task in others:
            self._reap(task)
        return code

    def run_criu(self, action, images, *options):
        log = os.path.join(images, f"{action}.log")
        command = [self.criu, action, "-D", images, "-v2", "-o", log, *options]
        code = subprocess.run(command, check=False, timeout=LIMIT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        if code:
            raise Trouble(f"criu {action} ended with {code}: {read(log)[-400:]}")

    def lazy_pages(self, dump, *options):
        return Daemon([self.pager, "criu-lazy-pages", "-D", dump.images, *options], dump.images)

    def own_lazy_pages(self, dump, *options):
        log = os.path.join(dump.images, "lazy-pages.log")
        return Daemon([self.criu, "lazy-pages", "-D", dump.images, "-v1", "-o", log, *options], dump.images)

    def restore(self, dump):
        """Starts what was dumped again: its tasks are this process' to wait for."""
        dump.forget_results()
        self.run_criu("restore", dump.images, "--lazy-pages", "-d")

    def _reap(self, task):
        ended = wait_until(lambda: self.end(task) or not os.path.exists(f"/proc/{task}"), f"the end of task {task}")
        # Another task has waited for it.
        return None if ended is True else os.waitstatus_to_exitcode(ended[1])

    @staticmethod
    def end(task):
        """How a child has ended, or None."""
        try:
            pid, status = os.waitpid(task, os.WNOHANG)
        except ChildProcessError:
            return None
        return (pid, status) if pid else None

    def kill_tasks(self, dump):
        """Ends what a case has left behind: tasks that this process has started or adopted, by their numbers."""
        for task in dump.all_tasks() if os.path.exists(os.path.join(dump.images, "pstree.img")) else [dump.task]:
            if self.is_child(task):
                os.kill(task, signal.SIGKILL)
                self._reap(task)

    @staticmethod
    def is_child(task):
        """Whether a task is a child of this process that runs, whose number nobody else can have."""
        try:
            return os.waitpid(task, os.WNOHANG)[0] == 0
        except ChildProcessError:
            return False


def expect(condition, message):
    if not condition:
        raise Trouble(message)
