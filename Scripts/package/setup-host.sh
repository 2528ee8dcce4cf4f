#!/usr/bin/env bash
# Prepares a host so that an ordinary user can run all of the selftest and handle kernel-mode faults:
#   setup-host.sh --check         reports what is ready and what is missing; changes nothing; exit code 1 if anything is missing
#   setup-host.sh [--yes] [USER]  sets up what is missing, for USER (default: the user who called sudo); asks first
#   setup-host.sh --undo [--yes]  undoes every change that this script made
# It shows every command before it runs it, and keeps the command that undoes it in /var/lib/swift-userfaultfd/undo, with a
# copy of this script. What it sets up is there again after a reboot.
set -euo pipefail

HUGE_PAGES=64
SWAP_MIB=256
GROUP=userfaultfd
STATE=/var/lib/swift-userfaultfd
SWAP=$STATE/swap
DEVICE=/dev/userfaultfd
RULE=/etc/udev/rules.d/60-userfaultfd.rules
SYSCTL=/etc/sysctl.d/60-userfaultfd.conf

usage() {
    sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"
    exit "$1"
}

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

huge_pages() { cat /proc/sys/vm/nr_hugepages 2>/dev/null || echo 0; }
swap_kib() { awk 'NR > 1 { total += $3 } END { print total + 0 }' /proc/swaps; }
device_group() { stat -c %G "$DEVICE" 2>/dev/null || true; }
in_group() { id -nG "$1" 2>/dev/null | tr ' ' '\n' | grep -qx "$GROUP"; }

# The four conditions.
has_huge_pages() { (($(huge_pages) >= HUGE_PAGES)); }
has_swap() { (($(swap_kib) >= 64 << 10)); }
has_device() { [[ $(device_group) == "$GROUP" ]]; }
has_member() { [[ -z $owner || $owner == root ]] || in_group "$owner"; }

check() {
    local missing=0
    say() { # CONDITION WORDS...
        local condition=$1 mark=ok
        shift
        "$condition" || { mark=no && missing=1; }
        printf '%-6s %s\n' "$mark" "$*"
    }
    say has_huge_pages "huge pages for cases on hugetlbfs: $(huge_pages) of $HUGE_PAGES"
    say has_swap "swap for cases that swap: $(($(swap_kib) >> 10)) MiB"
    if [[ -e $DEVICE ]]; then
        say has_device "$DEVICE accessible to the group $GROUP, to handle kernel-mode faults without privileges"
        [[ -z $owner || $owner == root ]] || say has_member "$owner is in the group $GROUP"
    else
        echo "       no $DEVICE: this kernel is older than 6.1 or has no userfaultfd"
    fi
    return $missing
}

# confirm COMMAND...: shows a command, and asks whether to run it.
confirm() {
    printf '+ %s\n' "$*"
    [[ $yes ]] && return
    [[ -t 0 ]] || die "no terminal to ask on: use --yes to make the changes"
    read -r -p '  run it? [y/N] ' answer
    [[ $answer == [yY]* ]]
}

# change COMMAND UNDO: runs COMMAND, after recording the command that undoes it: one line, which does no harm if it runs again,
# or if a reboot or somebody else has undone the change.
change() {
    confirm "$1" || { echo "  skipped" && return 0; }
    mkdir -p "$STATE"
    [[ ${BASH_SOURCE[0]} -ef $STATE/setup-host.sh ]] || install -m 755 "${BASH_SOURCE[0]}" "$STATE/setup-host.sh"
    grep -qxF -- "$2" "$STATE/undo" 2>/dev/null || echo "$2" >>"$STATE/undo"
    bash -euc "$1" || die "the command failed; --undo undoes what was done so far"
}

make() {
    if ! has_huge_pages; then
        local line=vm.nr_hugepages=$HUGE_PAGES
        change "{ grep -qsx $line $SYSCTL || echo $line >>$SYSCTL; } && sysctl -q $line" \
            "if [[ -e $SYSCTL ]]; then sed -i /^$line\$/d $SYSCTL; [[ -s $SYSCTL ]] || rm $SYSCTL; fi; sysctl -q vm.nr_hugepages=$(huge_pages)"
    fi
    if ! has_swap; then
        # It holds memory of every process: nobody else may read it, not even while it is written.
        change "install -m 600 /dev/null $SWAP && dd if=/dev/zero of=$SWAP bs=1M count=$SWAP_MIB status=none &&
  mkswap -q $SWAP && swapon $SWAP && { grep -qs '^$SWAP ' /etc/fstab || echo '$SWAP none swap nofail 0 0' >>/etc/fstab; }" \
            "if grep -q '^$SWAP ' /proc/swaps; then swapoff $SWAP; fi; rm -f $SWAP; [[ ! -e /etc/fstab ]] || sed -i '\\|^$SWAP |d' /etc/fstab"
    fi
    [[ -e $DEVICE ]] || return 0
    if ! has_device; then
        getent group "$GROUP" >/dev/null ||
            change "groupadd --system $GROUP" "if getent group $GROUP >/dev/null; then groupdel $GROUP; fi"
        change "mkdir -p ${RULE%/*} && echo 'KERNEL==\"userfaultfd\", GROUP=\"$GROUP\", MODE=\"0660\"' >$RULE" "rm -f $RULE"
        change "chgrp $GROUP $DEVICE && chmod 660 $DEVICE" "if [[ -e $DEVICE ]]; then chown $(stat -c %u:%g "$DEVICE") $DEVICE; chmod $(stat -c %a "$DEVICE") $DEVICE; fi"
    fi
    if ! has_member; then
        change "usermod -aG $GROUP $owner" \
            "if id -nG $owner 2>/dev/null | tr ' ' '\\n' | grep -qx $GROUP; then gpasswd -d $owner $GROUP; fi"
        echo "$owner will be in the group $GROUP after the next login"
    fi
}

# undo: runs the recorded commands, the last one first. Those that fail or are skipped are left for the next time.
undo() {
    [[ -s $STATE/undo ]] || { echo "nothing to undo" && return; }
    local command left=()
    # The terminal is the standard input, on which it asks.
    while read -r command <&3; do
        if ! confirm "$command"; then
            echo "  skipped"
        elif bash -euc "$command"; then
            continue
        else
            echo "  failed"
        fi
        left=("$command" "${left[@]}")
    done 3< <(tac "$STATE/undo")
    if ((${#left[@]})); then
        printf '%s\n' "${left[@]}" >"$STATE/undo"
        die "not everything is undone; what is left is in $STATE/undo, for --undo to do"
    fi
    rm -r "$STATE"
}

yes='' action=make owner=${SUDO_USER:-}
while (($#)); do
    case $1 in
        --check) action=check ;;
        --undo) action=undo ;;
        --yes) yes=1 ;;
        -h | --help) usage 0 ;;
        -*)
            echo "${0##*/}: there is no option $1" >&2
            usage 64 >&2
            ;;
        *) owner=$1 ;;
    esac
    shift
done
[[ $action == check || $(id -u) == 0 ]] || die "changing the host needs root: sudo $0"
[[ -z $owner ]] || id "$owner" >/dev/null 2>&1 || die "no such user: $owner"
"$action"
