"""That no verdict is lost, whatever becomes of the report, the helpers of a run, or the run itself."""
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from harness import POOL, Skip, Wrong, check, program, require, run


def expect_unwritable(answer, name):
    require(answer.returncode == 74, f"{name}: exit {answer.returncode}, not 74")
    require("cannot be written" in answer.stderr, f"{name}: standard error says '{answer.stderr[-200:]}'")


PASSING = "selfcheck-pass/*"


@check
def report_that_cannot_be_written():
    for form in ("tap", "json", "junit", "pretty"):
        arguments = ["run", "--filter", PASSING, "--format", form]
        expect_unwritable(run([*arguments, "--output", "/dev/full"]), f"--output /dev/full, {form}")
        with open("/dev/full", "w", encoding="utf-8") as full:
            expect_unwritable(run(arguments, stdout=full), f"full standard output, {form}")
        closed = run(arguments, ["sh", "-c", 'exec "$@" >&-', "sh"])
        expect_unwritable(closed, f"closed standard output, {form}")
    for arguments in (["list"], ["probe"], ["stress", "anon", "1", "1"]):
        with open("/dev/full", "w", encoding="utf-8") as full:
            expect_unwritable(run(arguments, stdout=full), " ".join(arguments))


@check
def report_that_grows_too_large():
    with tempfile.TemporaryDirectory() as directory:
        arguments = ["run", "--quick", "--format", "json", "--output", f"{directory}/report"]
        expect_unwritable(run(arguments, limits={resource.RLIMIT_FSIZE: 20 << 10}), "ulimit -f 20")


@check
def report_that_is_there_already():
    """A report stays until the next one is whole, whatever ends the run that writes it."""
    with tempfile.TemporaryDirectory() as directory:
        path, link = Path(directory, "report"), Path(directory, "link")
        link.symlink_to(path)
        first = run(["run", "--filter", PASSING, "--format", "json", "--output", str(path)])
        require(first.returncode == 0, first.stderr)
        path.chmod(0o640)
        whole = path.read_text()
        command = [program(), "run", "--filter", "selfcheck-hang", "--timeout", "60", "--format", "json", "--output", str(link)]
        for end in (signal.SIGKILL, signal.SIGTERM):
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                until(lambda: "run-case selfcheck-hang" in " ".join(map(command_of, children(process.pid))), "the case starts")
                require(path.read_text() == whole, "the report is gone while the next one is written")
                json.loads(Path(directory, "report.partial").read_text())
                process.send_signal(end)
        require(json.loads(path.read_text())["interrupted"] == "SIGTERM", "the report was not replaced at its end")
        require(path.stat().st_mode & 0o777 == 0o640 and link.is_symlink(), "the file is not what it was")
        path.write_text(whole)
        answer = run(["run", "--quick", "--format", "json", "--output", str(path)], limits={resource.RLIMIT_FSIZE: 20 << 10})
        expect_unwritable(answer, "ulimit -f 20")
        require(path.read_text() == whole, "a report that could not be written has replaced one")
        part = Path(directory, "report.partial")
        require(str(part) in answer.stderr and part.stat().st_size > 0, f"what was written is lost: {answer.stderr}")


@check
def reader_that_goes_away():
    read, write = os.pipe()
    os.close(read)
    answer = run(["run", "--filter", PASSING], stdout=write)
    os.close(write)
    expect_unwritable(answer, "a pipe that nobody reads")


@check
def numbers_that_are_too_large():
    for arguments in (
        ["run", "--timeout", "inf"], ["run", "--timeout", "nan"], ["run", "--timeout", "1e30"], ["run", "--timeout", "0"],
        ["run", "--repeat", "99999999999999999999"], ["run", "--repeat", "9223372036854775807"],
        ["stress", "anon", "1", "1", "--seconds", "1e30"], ["stress", "anon", "1", "1", "--seconds", "inf"],
        ["stress", "anon", "9223372036854775807", "1"], ["stress", "anon", "1", "9223372036854775807"],
        ["stress", "anon", "1", "1", "--threads", "9223372036854775807"],
    ):
        answer = run(arguments)
        require(answer.returncode == 64, f"{' '.join(arguments)}: exit {answer.returncode}, not 64")
    for option in ("--timeout", "--time-budget", "--repeat", "--jobs"):
        answer = run(["run", option, "-1"])
        require(answer.returncode == 64 and "Missing value" not in answer.stderr, f"{option} -1: {answer.stderr}")


@check
def case_by_hand():
    for name, code in (("selfcheck-pass/shmem", 0), ("selfcheck-fail", 1), ("selfcheck-skip", 4), ("nothing", 1)):
        answer = run(["run-case", name])
        require(answer.returncode == code, f"run-case {name}: exit {answer.returncode}, not {code}")


@check
def runner_that_is_stopped():
    """The time for which the runner is stopped, alone or with its case, is none that the case has used."""
    command = [program(), "run", "--filter", "selfcheck-hang", "--timeout", "3", "--format", "json"]
    for both in (False, True):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                is_case = lambda pid: "run-case selfcheck-hang" in command_of(pid)  # noqa: E731
                until(lambda: any(map(is_case, children(process.pid))), "the case starts")
                case = next(filter(is_case, children(process.pid)))
                os.kill(process.pid, signal.SIGSTOP)
                os.kill(case, signal.SIGSTOP if both else signal.SIGKILL)
                end = time.monotonic() + 5
                until(lambda: time.monotonic() > end, "the time goes on")
                if both:
                    os.kill(case, signal.SIGCONT)
                os.kill(process.pid, signal.SIGCONT)
                output, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        result = json.loads(output)["results"][0]
        if both:
            require(result["seconds"] > 7, f"the case had no 3 seconds: {result['seconds']}")
        else:
            require(result["reason"] == "it was killed by SIGKILL", f"the case's end is not seen: {result['reason']}")


@contextmanager
def holding_run(prefix=()):
    """A run whose one case has everything that a run can change, and waits."""
    command = [*prefix, program(), "run", "--filter", "selfcheck-host-hold", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: "run-case selfcheck-host-hold" in " ".join(map(command_of, children(process.pid))), "the case starts")
            yield process
        finally:
            process.kill()


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(f"still not so: {what}")
        time.sleep(0.02)


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def host_state():
    files = [POOL, "/proc/sys/vm/unprivileged_userfaultfd", "/sys/kernel/mm/transparent_hugepage/enabled"]
    state = {str(file): Path(file).read_text() for file in files}
    state["swaps"] = sorted(line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:])
    for directory in ("/sys/block", "/var/tmp", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
        names = os.listdir(directory) if os.path.isdir(directory) else []
        state[directory] = sorted(n for n in names if n.startswith(("zram", "uffd-selftest")))
    return state


@check
def totals_that_add_up():
    """Each result is counted once, also what passes although it is known to fail."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as known:
        json.dump([{"what": "a bug", "cases": ["selfcheck-pass", "selfcheck-fail"]}], known)
        known.flush()
        filters = [word for name in ("pass/*", "fail", "skip") for word in ("--filter", f"selfcheck-{name}")]
        document = json.loads(run(["run", *filters, "--format", "json", "--known-failures", known.name]).stdout)
    totals, results = document["totals"], document["results"]
    require(totals["xpass"] > 0 and sum(totals.values()) == len(results), f"{totals} for {len(results)} results")


@check
def time_budget_that_ends_a_run():
    for form in ("pretty", "tap", "ktap", "json", "junit", "kcidb"):
        answer = run(["run", "--filter", PASSING, "--time-budget", "0.000001", "--format", form])
        note = "results did not start"
        require(note in answer.stdout + answer.stderr, f"{form} does not say that the budget ended the run")


@check
def nohup():
    with holding_run(["nohup"]) as process:
        process.send_signal(signal.SIGHUP)
        process.terminate()
        output, _ = process.communicate(timeout=120)
    interrupted = json.loads(output).get("interrupted")
    require(interrupted == "SIGTERM", f"SIGHUP was not ignored: {interrupted}")


@check
def guardian_that_dies():
    before = host_state()
    with holding_run() as process:
        guardian = [pid for pid in children(process.pid) if "guard" in command_of(pid)]
        require(len(guardian) == 1, f"the guardian is not found: {guardian}")
        require(host_state() != before, "the run has changed nothing")
        os.kill(guardian[0], signal.SIGKILL)
        case = [pid for pid in children(process.pid) if "run-case" in command_of(pid)]
        os.kill(case[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=120)
    require(process.returncode == 1, f"exit {process.returncode}: {errors[-300:]}")
    document = json.loads(output)
    require("has died" in json.dumps(document), "nothing says that the guardian has died")
    after = host_state()
    require(after == before, f"the host is not as it was: {after} instead of {before}")


def expect_kept_away(case):
    """A second run does nothing while another one has the host."""
    before = host_state()
    answer = run(["run", "--filter", case, "--time-budget", "3", "--format", "json"])
    document = json.loads(answer.stdout)
    require(answer.returncode == 4, f"the second run: exit {answer.returncode}: {document['results']}")
    causes = {result["cause"] for result in document["results"]}
    require(causes == {"chance"}, f"the second run's causes are {causes}")
    require(host_state() == before, f"the second run has changed the host: {host_state()} instead of {before}")


@check
def setting_that_another_run_has_made():
    """It is put back when that run ends, so that a second run waits for that, as it does to change it itself."""
    with holding_run() as process:
        expect_kept_away("open-sysctl")
        process.terminate()
        process.communicate(timeout=120)


@check
def guardian_that_dies_beside_another_run():
    """Its runner keeps the host to itself, and puts it back."""
    before = host_state()
    with holding_run() as process:
        for pid in children(process.pid):
            if " guard" in command_of(pid):
                os.kill(pid, signal.SIGKILL)
        require(host_state() != before, "the run has changed nothing")
        expect_kept_away("selfcheck-host-provided")
        for pid in children(process.pid):
            if "run-case" in command_of(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=120)
    require(host_state() == before, f"the host is not as it was: {host_state()} instead of {before}")
    answer = run(["run", "--filter", "selfcheck-host-provided", "--format", "json"])
    require(answer.returncode == 0, f"a run after that: exit {answer.returncode}: {answer.stdout[-500:]}")


def kill_with_guardian(process):
    """Ends a run so that nobody puts the host back."""
    process.send_signal(signal.SIGSTOP)
    for pid in children(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=120)


def next_run():
    """The notes of a run after one that was killed."""
    answer = run(["run", "--filter", "selfcheck-host-provided", "--format", "json"])
    require(answer.returncode == 0, f"exit {answer.returncode}: {answer.stdout[-500:]}")
    return [note for note in json.loads(answer.stdout)["notes"] if note.startswith("an earlier run has not put the host back")]


@check
def run_that_is_killed_with_its_guardian():
    """The next run puts back what is left, and says so, but not what somebody has changed meanwhile."""
    before = host_state()
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    before_setting = setting.read_text()
    with holding_run() as process:
        require(host_state() != before, "the run has changed nothing")
        kill_with_guardian(process)
    require(host_state() != before, "somebody has put the host back")
    notes = next_run()
    after = host_state()
    require(after == before, f"the host is not as it was: {after} instead of {before}")
    require(any("/proc/sys/vm/unprivileged_userfaultfd is" in note for note in notes), f"nothing says what was put back: {notes}")
    require(not next_run(), "a run after that has something to put back again")

    with holding_run() as process:
        kill_with_guardian(process)
    if setting.read_text() != before_setting:
        setting.write_text("within_size")
        try:
            notes = next_run()
            require("[within_size]" in setting.read_text(), "a setting is put back that somebody has changed since")
            require(any("it stays within_size" in note for note in notes), f"nothing says so: {notes}")
        finally:
            setting.write_text(before_setting.split("[")[1].split("]")[0])
    else:
        next_run()


@contextmanager
def journal_of(undoing, value):
    """A host on which a run has left something to put back."""
    journal = Path("/run/uffd-selftest.journal")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    journal.touch(0o600)
    try:
        journal.write_text(json.dumps({"boot": boot, "undoings": [{undoing: {"_0": value}}], "values": {}}) + "\n")
        yield
    finally:
        journal.unlink()


@check
def what_cannot_be_put_back():
    """Each run tries it again and says what helps, until somebody deletes the file that names it."""
    arguments = ["run", "--filter", "selfcheck-host-provided", "--format", "json"]
    # No run has a file there, and nobody can remove this one.
    with journal_of("unlink", "/proc/version"):
        for _ in range(2):
            answer = run(arguments)
            require(answer.returncode == 1, f"exit {answer.returncode}: {answer.stdout[-500:]}")
            notes = [note for note in json.loads(answer.stdout)["notes"] if "/proc/version is still there" in note]
            require(len(notes) == 2 and notes[0].startswith("an earlier run has not"), f"at the start: {notes}")
            last = notes[-1]
            helps = "(rm /proc/version)" in last and "unless you delete /run/uffd-selftest.journal" in last
            require(last.startswith("not put back: ") and helps, f"at the end: {last}")
    answer = run(arguments)
    notes = [note for note in json.loads(answer.stdout)["notes"] if "put" in note]
    require(answer.returncode == 0 and not notes, f"afterwards: exit {answer.returncode}, {notes}")


@check
def device_in_the_place_of_another():
    """What a run has made and somebody has removed, is not put back on what has got its name since."""
    control = Path("/sys/class/zram-control")
    if not control.is_dir():
        raise Skip("there is no zram")
    number = (control / "hot_add").read_text().strip()
    device = Path(f"/sys/block/zram{number}")
    try:
        (device / "disksize").write_text(str(4 << 20))
        with journal_of("removeZram", number):
            answer = run(["run", "--filter", "selfcheck-host-provided", "--format", "json"])
        require(answer.returncode == 0, f"exit {answer.returncode}: {answer.stdout[-500:]}")
        require(device.is_dir() and (device / "disksize").read_text() == f"{4 << 20}\n", "another's device is gone")
    finally:
        if device.is_dir():
            (device / "reset").write_text("1")
            (control / "hot_remove").write_text(number)


@check
def interrupted_json():
    with holding_run() as process:
        process.terminate()
        output, _ = process.communicate(timeout=120)
    require(process.returncode == -signal.SIGTERM, f"exit {process.returncode}")
    document = json.loads(output)
    require(document.get("interrupted") == "SIGTERM", f"interrupted: {document.get('interrupted')}")
    require(document["planned"] == 1 and not document["results"], "what was planned is not told")
