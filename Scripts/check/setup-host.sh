#!/usr/bin/env bash
# Sets up a host with Scripts/package/setup-host.sh and undoes it, on a terminal and without one, with failures and over a reboot.
# Needs root; nothing of this host changes: /etc, /var/lib, the device and the files in /proc are copies in a mount namespace,
# and swapon, swapoff, mkswap and sysctl are scripts that write to them.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

if [[ ${1-} != --inside ]]; then
    [[ $(id -u) == 0 ]] || die "a mount namespace needs root"
    need unshare util-linux
    need script bsdutils
    exec timeout -k 10 120 unshare --mount --propagation private "${BASH_SOURCE[0]}" --inside
fi

# MARK: A host that may change

host=$(mktemp -d)
mount -t tmpfs host "$host"
mkdir "$host"/{etc,lib,bin}
cp -a /etc/. "$host/etc"
mkdir -p "$host/etc/udev/rules.d" "$host/etc/sysctl.d"
printf 'UUID=1 / ext4 defaults 0 1\n' >"$host/etc/fstab"
echo Filename >"$host/swaps"
echo 0 >"$host/nr_hugepages"
if [[ -e /dev/userfaultfd ]]; then
    mknod -m 600 "$host/device" c 10 126
    mount --bind "$host/device" /dev/userfaultfd
fi
cat >"$host/bin/swapon" <<'END'
#!/bin/sh
[ "$(stat -c %a "$1")" = 600 ] && echo "$1 file 262144 0 -2" >>/proc/swaps
END
cat >"$host/bin/swapoff" <<'END'
#!/bin/sh
[ ! -e /etc/busy ] && grep -q "^$1 " /proc/swaps && sed "\\|^$1 |d" /proc/swaps >/etc/swaps && cat /etc/swaps >/proc/swaps && rm /etc/swaps
END
printf '#!/bin/sh\n' >"$host/bin/mkswap"
cat >"$host/bin/sysctl" <<'END'
#!/bin/sh
echo "${2#*=}" >/proc/sys/vm/nr_hugepages
END
# The swap file is looked at while it is written.
cat >"$host/bin/dd" <<'END'
#!/bin/sh
[ "$(stat -c %a /var/lib/swift-userfaultfd/swap)" = 600 ] || exit 1
END
chmod 755 "$host"/bin/*
mount --bind "$host/etc" /etc
mount --bind "$host/lib" /var/lib
mount --bind "$host/swaps" /proc/swaps
mount --bind "$host/nr_hugepages" /proc/sys/vm/nr_hugepages
export PATH=$host/bin:$PATH
unset SUDO_USER

setup=$REPO/Scripts/package/setup-host.sh
state() {
    cat /proc/swaps /proc/sys/vm/nr_hugepages /etc/fstab /etc/group
    [[ ! -e /dev/userfaultfd ]] || stat -c '%a %u:%g' /dev/userfaultfd
    find /var/lib /etc/udev/rules.d /etc/sysctl.d -name '*userfaultfd*'
}
# same BEFORE WHAT: the host is as it was.
same() { diff <(echo "$1") <(state) >&2 || die "$2: the host is not as it was"; }
# fails WHAT COMMAND...
fails() { if "${@:2}" >"$host/log" 2>&1; then cat "$host/log" >&2 && die "$1: no failure"; fi; }
# shellcheck disable=SC2059 # the answer as often as there is a number
# answer ANSWER OPTION...: on a terminal, with this answer to every question.
answer() { printf "$1\n%.0s" {1..9} | script -qec "$setup ${*:2}" /dev/null; }
reboot() {
    echo Filename >/proc/swaps
    echo 0 >/proc/sys/vm/nr_hugepages
    [[ ! -e /dev/userfaultfd ]] || { chown 0:0 /dev/userfaultfd && chmod 600 /dev/userfaultfd; }
}

# MARK: The checks

before=$(state)
fails "without a terminal" "$setup" nobody </dev/null
same "$before" "without a terminal"

echo "== on a terminal"
answer y nobody
"$setup" --check nobody
answer y --undo
same "$before" "--undo on a terminal"

echo "== without questions"
"$setup" --yes nobody
"$setup" --undo --yes
same "$before" "--undo --yes"

echo "== answered with no"
answer n nobody
same "$before" "everything skipped"
"$setup" --yes nobody
during=$(state)
fails "--undo, skipped" answer n --undo
same "$during" "--undo, skipped"
"$setup" --undo --yes
same "$before" "--undo after one that was skipped"

echo "== a step that fails"
"$setup" --yes nobody
touch /etc/busy
fails "swap that is busy" "$setup" --undo --yes
[[ $(wc -l </var/lib/swift-userfaultfd/undo) == 1 ]] || die "more than what failed is left: $(</var/lib/swift-userfaultfd/undo)"
rm /etc/busy
"$setup" --undo --yes
same "$before" "--undo after a failure"

echo "== a reboot"
"$setup" --yes nobody
grep -q '^/var/lib/swift-userfaultfd/swap none swap' /etc/fstab || die "there is no swap after a reboot"
recorded=$(</var/lib/swift-userfaultfd/undo)
reboot
"$setup" --yes nobody
[[ $(</var/lib/swift-userfaultfd/undo) == "$recorded" ]] || die "after a reboot, changes are recorded again"
reboot
# As after the package was removed.
/var/lib/swift-userfaultfd/setup-host.sh --undo --yes
same "$before" "--undo after two reboots"
"$setup" --yes nobody
reboot
"$setup" --undo --yes
same "$before" "--undo after a reboot"
echo "all as it should be"
