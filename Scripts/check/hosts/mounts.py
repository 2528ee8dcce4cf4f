"""Hosts with read-only or missing mounts, as containers have them."""
import os
from pathlib import Path

from harness import Skip, check, expect, in_mounts, require, run, whole

READ_ONLY_SYS = "mount --make-rprivate /\nmount -o remount,ro,bind /sys\n"

READ_ONLY_SETTINGS = READ_ONLY_SYS + "mount --bind /proc/sys /proc/sys\nmount -o remount,ro,bind /proc/sys\n"


def unused_zram():
    """Devices that somebody has made and not given a size."""
    sizes = {path.parent.name: path.read_text().strip() for path in Path("/sys/block").glob("zram*/disksize")}
    return {name for name, size in sizes.items() if size == "0"}


@check
def read_only_sys():
    """A read of hot_add makes a device, which nobody can remove again on a read-only /sys."""
    if not os.path.exists("/sys/class/zram-control/hot_add"):
        raise Skip("no zram")
    before = unused_zram()
    expect(run(whole("wp-swap/anon"), in_mounts(READ_ONLY_SYS)), codes=(0, 4))
    left = unused_zram() - before
    for name in left:
        Path("/sys/class/zram-control/hot_remove").write_text(name.removeprefix("zram"))
    require(not left, f"devices are left behind: {sorted(left)}")


@check
def read_only_settings():
    """A setting that could not be changed needs no putting back."""
    prefix = in_mounts(READ_ONLY_SETTINGS)
    expect(run(whole("minor/*", "wp-swap/*", "move/anon"), prefix), passes=1)
    answer = run(["stress", "hugetlb", "4", "4"], prefix)
    require("not put back" not in answer.stdout, answer.stdout[-300:])


@check
def read_only_proc():
    prefix = in_mounts(READ_ONLY_SYS + "mount -o remount,ro,bind /proc\n")
    answer = run(whole("wp-kernel-write/*", "*-migrated/*", "*clear-refs*", "move-soft-dirty/*"), prefix)
    expect(answer, passes=3, reason="compact_memory cannot be written (Read-only file system)")


@check
def no_sys():
    prefix = in_mounts("umount -l /sys")
    expect(run(whole("wp-huge-zero/*", "minor/*"), prefix), reason="mount -t sysfs sysfs /sys", codes=(0, 4))


@check
def empty_dev():
    """Without /dev/null nothing fails, and no file of that name is made."""
    prefix = in_mounts("mount --make-rprivate /\nmount -t tmpfs none /dev\ntrap 'echo made: $(ls -A /dev) >&2' EXIT\n\"$@\"; exit")
    answer = run(whole("move*/anon", "event-fork/anon", "copy-*/shmem"), prefix)
    expect(answer, passes=20)
    made = answer.stderr.splitlines()[-1].split() if answer.stderr else []
    require("null" not in made, f"the run has made files in /dev: {made}")


@check
def little_in_dev():
    """A root with /proc, and nothing but /dev/null in /dev."""
    script = """set -e
        mount --make-rprivate /
        root=/tmp
        mount -t tmpfs none $root
        for directory in /*; do
            case $directory in /dev|/proc|/sys|/run|/tmp) continue ;; esac
            [ ! -d "$directory" ] || { mkdir "$root$directory"; mount --rbind "$directory" "$root$directory"; }
        done
        mkdir $root/proc $root/dev $root/tmp
        mount --bind /proc $root/proc
        touch $root/dev/null
        mount --bind /dev/null $root/dev/null
        exec chroot $root "$@\""""
    answer = expect(run(whole("register-*"), ["unshare", "--mount", "sh", "-c", script, "sh"]), passes=5)
    notes = [r["detail"] or "" for r in answer["results"] if r["case"] == "register-every-memory"]
    require("no /dev/zero" in notes[0], f"what is missing is not named: {notes}")
