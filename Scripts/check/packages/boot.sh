#!/usr/bin/env bash
# Starts the systemd of a system in namespaces, and a program as a service there: boot.sh SYSTEM PROGRAM
# Prints what the program prints, and ends with its exit code. The system is the folder of one, and is not changed: what is written
# goes to memory, and is gone at the end. It needs root and cgroup2.
set -euo pipefail

if [[ $1 != --inside ]]; then exec unshare --mount --propagation private "${BASH_SOURCE[0]}" --inside "$@"; fi
system=$2 program=$3
work=$(mktemp -d)
mount -t tmpfs work "$work"
mkdir "$work"/{upper,work,root,cgroup}
mount -t overlay overlay -o "lowerdir=$system,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root
install -m 755 "$program" "$root/program"
cat >"$root/etc/systemd/system/program.service" <<'END'
[Unit]
After=basic.target
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
ExecStart=/bin/sh -c '/program >/result 2>&1; echo $? >/code'
END

# A cgroup that systemd takes for the root of all of them.
mount -t cgroup2 cgroup2 "$work/cgroup"
cgroup=$work/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/swift-userfaultfd.$$
mkdir "$cgroup"
(
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    # shellcheck disable=SC2016 # the inner shell expands it
    exec timeout -k 5 120 unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net bash -euc '
        cd "$0"
        mount -t proc proc proc
        mount -t sysfs sysfs sys
        mount -t tmpfs tmpfs sys/fs
        mkdir sys/fs/cgroup
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        for folder in run tmp dev; do mount -t tmpfs tmpfs "$folder"; done
        for device in null zero full random urandom tty; do
            touch "dev/$device"
            mount --bind "/dev/$device" "dev/$device"
        done
        ln -s /proc/self/fd dev/fd
        mkdir old
        pivot_root . old
        umount -l old
        exec env -i container=unshare /lib/systemd/systemd --log-target=null --unit=program.service' "$root"
) || true
cat "$root/result"
find "$cgroup" -depth -type d -exec rmdir {} \;
exit "$(<"$root/code")"
