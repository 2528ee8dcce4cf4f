"""Where a report is written, and what becomes of what was there before."""
import json
import os
import resource
import signal
import subprocess
import tempfile
from pathlib import Path

from harness import USER, check, in_mounts, program, require, run, shell
from verdicts import PASSING, children, command_of, expect_unwritable, until

OLD = "an old report\n" * 2000


def passes(path, prefix=(), **options):
    answer = run(["run", "--filter", PASSING, "--format", "json", "--output", str(path)], prefix, **options)
    require(answer.returncode == 0, f"{path}: exit {answer.returncode}: {answer.stderr[-300:]}")
    return answer


def expect_whole(path, what):
    require("planned" in json.loads(path.read_text()), f"{what}: no whole report")
    require(not Path(f"{path}.partial").exists(), f"{what}: a .partial is left")


@check
def report_that_is_written_in_its_place():
    """What cannot be replaced, or has other names or owners, gets the report all the same."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        path, other, mounted = Path(directory, "report"), Path(directory, "other"), Path(directory, "mounted")
        for file in (path, mounted):
            file.write_text(OLD)
        passes(path, in_mounts(f"mount --bind {mounted} {path}"))
        expect_whole(mounted, "a file that is mounted")
        require(path.read_text() == OLD, "what lies under a mount is not as it was")

        mounted.unlink()
        other.hardlink_to(path)
        passes(path)
        expect_whole(other, "another name of the file")

        path.unlink()
        path.write_text(OLD)
        os.chmod(path, 0o666)
        passes(path, USER)
        expect_whole(path, "a folder that takes no other file")

        path.write_text(OLD)
        os.chown(path, 65534, 65534)
        before = path.stat()
        passes(path)
        expect_whole(path, "a file of another user")
        after = path.stat()
        require((before.st_ino, before.st_uid) == (after.st_ino, after.st_uid), "another user's file was replaced")

        path.with_name("report.partial").symlink_to(other)
        os.chown(path, 0, 0)
        path.write_text(OLD)
        passes(path)
        require("planned" in json.loads(path.read_text()), "no report beside a link")


@check
def report_that_others_write_to():
    """A shell's output before and after a run stays where the report goes."""
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        for redirection in (">", ">>"):
            with tempfile.NamedTemporaryFile("r+") as log:
                script = 'echo before; "$@"; echo after'
                command = ["sh", "-c", f"{{ {script}; }} {redirection}{log.name}", "sh", program(), "run", "--filter", PASSING]
                answer = subprocess.run([*command, "--output", name], capture_output=True, text=True, timeout=60)
                lines = log.read().splitlines()
                require(
                    answer.returncode == 0 and lines[0] == "before" and lines[-1] == "after" and len(lines) > 4,
                    f"{name} {redirection}: {lines[:1]} ... {lines[-1:]}, {answer.stderr}")


@check
def report_that_may_not_be_written():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory, "report")
        path.write_text(OLD)
        os.chmod(path, 0o444)
        os.chmod(directory, 0o777)
        arguments = ["run", "--filter", PASSING, "--output", str(path)]
        expect_unwritable(run(arguments, USER), "a file that is only read")
        require(path.read_text() == OLD, "a file that is only read was replaced")
        # The run cannot start, and nothing was written.
        for files in range(4, 7):
            answer = run(arguments, limits={resource.RLIMIT_NOFILE: files})
            require(answer.returncode in (71, 74), f"ulimit -n {files}: exit {answer.returncode}")
            require(os.listdir(directory) == ["report"], f"ulimit -n {files}: files are left: {os.listdir(directory)}")
        require(path.read_text() == OLD, "a run that could not start has written a report")


@check
def report_of_two_runs():
    """A run leaves a report alone that another is writing, and a file that has come meanwhile."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "report")
        path.write_text(OLD)
        command = [program(), "run", "--filter", "selfcheck-hang", "--timeout", "60", "--format", "json", "--output", str(path)]
        arguments = ["run", "--filter", PASSING, "--format", "json", "--output", str(path)]
        for replaced in (False, True):
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                try:
                    is_case = lambda pid: "run-case selfcheck-hang" in command_of(pid)  # noqa: E731
                    until(lambda: any(map(is_case, children(process.pid))), "the case starts")
                    for again in range(2):
                        answer = run(arguments)
                        expect_unwritable(answer, "a file that another run writes")
                        require("another run is writing" in answer.stderr, f"nothing names it: {answer.stderr}")
                        if not replaced or again:
                            break
                        path.rename(path.with_name("moved"))
                        path.write_text(OLD)
                    process.send_signal(signal.SIGTERM)
                    _, errors = process.communicate(timeout=60)
                finally:
                    process.kill()
            if replaced:
                require(path.read_text() == OLD, "a file that has come meanwhile was replaced")
                require("report.partial" in errors, f"nothing says where the report is: {errors}")
                json.loads(path.with_name("report.partial").read_text())
            else:
                require(json.loads(path.read_text())["interrupted"] == "SIGTERM", "the first run's report is lost")
        path.write_text("")
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: path.read_text(), "the report begins")
                expect_unwritable(run(arguments), "a new file that another run writes")
            finally:
                process.kill()
