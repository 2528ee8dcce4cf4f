"""Hosts that lack something: limits, namespaces, file systems."""
import json
import os
import re
import resource
import sys
from pathlib import Path

from harness import USER, Skip, check, expect, in_mounts, require, run, whole

FILTERED = Path(__file__).parent / "filtered.py"
RELEASE = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


def filtered(call):
    return [sys.executable, str(FILTERED), call]


def require_device():
    if not os.path.exists("/dev/userfaultfd"):
        raise Skip("no /dev/userfaultfd")


@check
def root_of_a_container():
    expect(run(whole(), ["unshare", "-Urmpf", "--mount-proc"]), passes=800, reason="initial user namespace")


@check
def filtered_system_call():
    """A container's usual profile, which has no userfaultfd(2), with the device beside it."""
    require_device()
    answer = run(whole("open-*", "UFFDIO_API*", "api-*", "process-*", "copy-*/anon"), filtered("userfaultfd"))
    expect(answer, passes=20, reason="userfaultfd(2) is filtered")


@check
def filtered_calls_that_all_need():
    for call in ("madvise", "clone3"):
        expect(run(whole("minor/*", "wake-range/*"), filtered(call)), reason=f"{call}(2) is filtered", codes=(4,))
    expect(run(whole("event-fork-user-mode/*"), filtered("process_vm_readv"), timeout=30), reason="process_vm_readv(2)", codes=(4,))
    expect(run(whole("wp-read/*"), filtered("process_vm_readv")), reason="process_vm_readv(2)", codes=(0, 4))


@check
def filtered_sealing():
    """What a filter refuses is not what the kernel has not, even if the filter answers as an older kernel does."""
    for error in ("EPERM", "ENOSYS") if RELEASE >= (6, 10) else ("EPERM",):
        answer = run(whole("seal-part/anon"), filtered(f"mseal:{error}"))
        document = expect(answer, reason="mseal(2) is filtered", codes=(4,))
        causes = {result["cause"] for result in document["results"]}
        require(causes == {"host"}, f"{error}: the causes are {causes}")


@check
def filtered_mremap():
    """Not taken for a kernel that cannot move huge pages."""
    document = expect(run(whole("event-remap/hugetlb"), filtered("mremap")), reason="mremap(2) is filtered", codes=(4,))
    causes = {result["cause"] for result in document["results"]}
    require(causes == {"host"}, f"the causes are {causes}")


@check
def filtered_memory_files():
    """Only what needs such a file is skipped, by a filter of either sort."""
    for error, globs in (("EPERM", []), ("ENOSYS", ["fault-*", "move-errors/*", "UFFDIO_API*"])):
        document = expect(run(whole(*globs), filtered(f"memfd_create:{error}")), reason="memfd_create(2) is filtered")
        passed = {r["memory"] for r in document["results"] if r["outcome"] == "pass"}
        require({"anon", "tmpfs", "tmpfs-private", None} <= passed, f"{error}: nothing but {passed} has passed")
        for memory, code in (("shmem", 4), ("anon", 0)):
            answer = run(["stress", memory, "4", "4", "--mode", "bounce"], filtered(f"memfd_create:{error}"))
            require(answer.returncode == code, f"stress {memory}: exit {answer.returncode}: {answer.stdout[-300:]}")


@check
def filtered_process_descriptors():
    """Old container runtimes refuse pidfd_open(2): the run does without, and ends what hangs or is left behind."""
    expect(run(whole(), filtered("pidfd_open")), passes=800)
    for name, text in (("hang", "it did not end within 0.5 seconds"), ("stray", "left 1 processes behind")):
        arguments = ["run", "--filter", f"selfcheck-{name}", "--timeout", "0.5" if name == "hang" else "60"]
        answer = run(arguments, filtered("pidfd_open:ENOSYS"), timeout=60)
        require(text in answer.stdout, f"{name}: {answer.stdout[-300:]}")


@check
def filtered_access_to_memory():
    """A case that waits for the fault of such a call must not wait for one that is refused."""
    cases = whole("kernel-faults-short/*", "wp-kernel-write*/*")
    for call in ("process_vm_readv", "process_vm_writev"):
        expect(run(cases, filtered(call)), passes=2, reason=f"{call}(2)")
        expect(run(cases, [*filtered(f"{call}:ENOSYS"), *USER]), passes=2)


@check
def small_limits():
    """Limits with which nothing can run end with their name, and are no failure of the kernel."""
    for limit, kibibytes, word in (
        (resource.RLIMIT_STACK, 128, "ulimit -s"), (resource.RLIMIT_STACK, 256, "ulimit -s"),
        (resource.RLIMIT_DATA, 6000, "ulimit -d"), (resource.RLIMIT_AS, 24000, "ulimit -v"),
        (resource.RLIMIT_AS, 30000, "ulimit -v"),
    ):
        answer = run(["run", "--quick"], limits={limit: kibibytes << 10})
        require(answer.returncode == 71 and word in answer.stderr, f"{word} {kibibytes}: {answer.returncode}, {answer.stderr}")
    answer = run(["run", "--quick"], limits={resource.RLIMIT_NOFILE: 3})
    require(answer.returncode == 71 and "ulimit -n" in answer.stderr, f"ulimit -n 3: {answer.returncode}, {answer.stderr}")
    expect(run(whole("minor/*"), limits={resource.RLIMIT_FSIZE: 1 << 20}), reason="ulimit -f", codes=(4,))
    expect(run(whole("minor/*"), limits={resource.RLIMIT_DATA: 16 << 20}), reason="ulimit -d", codes=(4,))
    # What any user may raise is raised.
    script = "ulimit -S -s 128; ulimit -S -f 1024; ulimit -S -d 6000"
    expect(run(whole("kernel-faults*/anon", "minor/*"), ["bash", "-c", script + '; exec "$@"', "bash"]), passes=5)


@check
def few_descriptors():
    expect(run(whole(), USER, {resource.RLIMIT_NOFILE: 20}), passes=500, reason="ulimit -n")


@check
def too_few_descriptors_to_run():
    expect(run(whole(), USER, {resource.RLIMIT_NOFILE: 8}), reason="ulimit -n", codes=(4,))


@check
def few_processes():
    script = "ulimit -u 4"
    expect(run(whole(), [*USER, "bash", "-c", script + '; exec "$@"', "bash"]), reason="ulimit -u", codes=(0, 4))


@check
def little_address_space():
    expect(run(whole(), USER, {resource.RLIMIT_AS: 1000000 << 10}), passes=500)
    expect(run(whole(), USER, {resource.RLIMIT_AS: 250000 << 10}), reason="ulimit -v", codes=(0, 4))


@check
def no_locked_memory():
    expect(run(whole(), USER, {resource.RLIMIT_MEMLOCK: 0}), passes=500, reason="ulimit -l")


@check
def no_core_dumps():
    """A case that never saw a core cannot pass: whoever may raise no limit has none."""
    prefix = ["setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]
    expect(run(whole("process-core-dump"), prefix, {resource.RLIMIT_CORE: 0}), reason="no core was written", codes=(4,))


@check
def small_tmpfs():
    mounts = "\n".join(f"mount -t tmpfs -o size=64k,mode=1777 none {d}" for d in ("/dev/shm", "/tmp"))
    expect(run(whole(), in_mounts(mounts + "\nmount -t tmpfs -o size=64k none /run")), passes=600, reason="on a tmpfs")


@check
def no_tmpfs():
    hide = "\n".join(f"mount -t ramfs none {d}" for d in ("/dev/shm", "/tmp", "/run"))
    expect(run(whole(), in_mounts(hide)), passes=600, reason="no tmpfs is mounted")


@check
def small_stack():
    limits = {resource.RLIMIT_STACK: 1024 << 10}
    expect(run(whole("*-many-mappings/*", "fault-*", "wake-*", "*unmap*"), [], limits), passes=50)


@check
def small_memory_group():
    """A container with less memory than a case needs: the limit is named, and not the host."""
    script = """set -e
        if [ -w /sys/fs/cgroup/memory/cgroup.procs ]; then
            group=/sys/fs/cgroup/memory/uffd-hosts-$$ limit=memory.limit_in_bytes
        else
            group=/sys/fs/cgroup/uffd-hosts-$$ limit=memory.max
        fi
        mkdir "$group"
        trap 'rmdir "$group"' EXIT
        echo 20M >"$group/$limit"
        [ ! -e "$group/memory.swap.max" ] || echo 0 >"$group/memory.swap.max"
        sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@\""""
    prefix = ["sh", "-c", script, "sh"]
    expect(run(whole("zeropage-*", "copy-*", "move-*"), prefix), reason="the memory control group of this run was full")


@check
def read_only_run():
    answer = expect(run(whole("selfcheck-host-provided"), in_mounts("mount -t tmpfs -o ro none /run")), codes=(0, 4))
    text = json.dumps(answer)
    require("does not let go" not in text, "another run is blamed that there is not")


@check
def no_run():
    """A root with everything but /run."""
    script = """set -e
        root=$(mktemp -d)
        mount -t tmpfs none "$root"
        for directory in proc sys dev bin lib lib64 usr var tmp; do
            [ -d /$directory ] || continue
            mkdir "$root/$directory"
            mount --rbind /$directory "$root/$directory"
        done
        exec chroot "$root" "$@\""""
    prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]
    answer = expect(run(whole("selfcheck-host-provided"), prefix), codes=(0, 4))
    require("does not let go" not in json.dumps(answer), "another run is blamed that there is not")


@check
def no_proc():
    expect(run(whole(), in_mounts("umount -l /proc")), reason="mount -t proc", codes=(4,))
