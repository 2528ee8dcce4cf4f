#!/usr/bin/env bash
# Runs one program in a virtual machine with the newest kernel of a series, as root or as an ordinary user:
#   Scripts/matrix/kernel-run.sh [--user] [--machine NAME] [--one-thread] [--timeout SECONDS] [--console FILE]
#       SERIES PROGRAM [ARGUMENT...]
# --machine arm64-4k or arm64-16k: a guest of that architecture with pages of that size, for a static program.
# --one-thread: the guest's two processors share one thread of this host, as on a host that has no second one to give.
# Prints what the program prints and exits as it does; 124: out of time; 125: the kernel died.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/guest.sh
source "$MATRIX/guest.sh"

limit=120 console='' user=root
while (($#)); do
    case $1 in
        --user) user=user ;;
        --machine) choose_machine "${2:?}" && shift ;;
        --one-thread) GUEST_ONE_THREAD=1 ;;
        --timeout) limit=${2:?} && shift ;;
        --console) console=${2:?} && shift ;;
        -h | --help) usage 0 ;;
        -*) usage 64 ;;
        *) break ;;
    esac
    shift
done
(($# >= 2)) || usage 64
series=$1 program=$2
command="exec /bin/program$( (($# == 2)) || printf ' %q' "${@:3}")"
[[ -x $program ]] || die "not an executable file: $program"

kernel=$(kernel_dir "$series")
work=$(mktemp -d)
trap 'guest_stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
guest_tree "$work/root"
guest_modules "$work/root" "$kernel"
guest_program "$work/root" "$program" program
{
    echo '#!/bin/sh'
    printf 'cd /tmp && exec su -s /bin/sh %s -c %q\n' "$user" "$command"
} >"$work/root/job"
chmod +x "$work/root/job"
guest_pack "$work/root" "$work/initramfs"
for _ in 1 2 3; do
    code=0
    guest_start "$kernel" "$work/initramfs" "$work/console" "$limit"
    guest_wait "${GUESTS[-1]}" "$work/console" || code=$?
    if ((code != 125)) || guest_came_up "$work/console"; then break; fi
done
[[ -z $console ]] || cp "$work/console" "$console"
if ((code == 124)); then note "$series: out of time after $limit s; the console's end:"; fi
if ((code == 125)); then note "$series: the guest died; the console's end:"; fi
if ((code == 124 || code == 125)); then tail -n 40 "$work/console" >&2; fi
exit "$code"
