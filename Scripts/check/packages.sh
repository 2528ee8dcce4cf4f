#!/usr/bin/env bash
# Installs the Debian packages in a fresh Debian, uses the programs there, removes them, and looks for what is left:
#   Scripts/check/packages.sh [SUITE...]     bookworm and trixie by default
# UFFD_PACKAGES names a folder with the packages; by default Scripts/package/deb.sh makes them. Needs root. The fresh systems
# are made with debootstrap, from the mirror of the host's apt, and kept in .build-packages.
# Ends with a line "N passed, N failed, N skipped".
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/../debian.sh
source "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"

case ${1-} in
    -h | --help) usage 0 ;;
    -*) usage 64 ;;
esac
[[ $(id -u) == 0 ]] || die "chroot needs root"
(($#)) || set -- bookworm trixie
need debootstrap debootstrap
need lintian lintian
need unshare util-linux
cache=$REPO/.build-packages
mkdir -p "$cache"
work=$(mktemp -d "$cache/run.XXXXXX")
trap 'rm -rf "$work"' EXIT

packages=${UFFD_PACKAGES-}
if [[ -z $packages ]]; then
    packages=$work/packages
    "$REPO/Scripts/package/deb.sh" "$packages"
fi
debs=("$packages"/uffd-selftest_*.deb "$packages"/uffd-pager_*.deb)
[[ ${#debs[@]} == 2 && -e ${debs[0]} && -e ${debs[1]} ]] || die "$packages does not have one package of each program"

passed=0 failed=0 skipped=0
# check NAME COMMAND...: runs a command, and shows its output if it fails.
check() {
    local name=$1 begin=$SECONDS code
    shift
    # Not as a condition: there, a command that fails does not end a function.
    set +e
    (set -e && "$@") >"$work/log" 2>&1
    code=$?
    set -e
    if [[ $code == 0 ]]; then
        passed=$((passed + 1))
        echo "$name: passed in $((SECONDS - begin)) s"
    else
        failed=$((failed + 1))
        sed 's/^/    /' "$work/log"
        echo "$name: failed"
    fi
}

# fresh SUITE: makes the folder of a fresh system in the cache, unless it is there.
fresh() (
    exec {lock}>"$cache/$1.lock"
    flock "$lock"
    [[ ! -d $cache/$1 ]] || exit 0
    main=$(mirror Debian)
    [[ $main ]] || die "apt has no Debian mirror (no Debian sources, or 'apt-get update' never ran)"
    note "making a fresh $1"
    rm -rf "$cache/$1.new"
    # Without its keys, debootstrap would believe any mirror.
    timeout 900 debootstrap --force-check-gpg --keyring="$KEYRING" --variant=minbase --include=man-db,systemd \
        "$1" "$cache/$1.new" "$main" >"$work/debootstrap.log" 2>&1 || die "debootstrap of $1 failed: $(tail -n 5 "$work/debootstrap.log")"
    mv "$cache/$1.new" "$cache/$1"
)

# inside COMMAND...: runs a command in the system, which ends with all of its processes and mounts.
inside() {
    # shellcheck disable=SC2016 # the inner shell expands it
    timeout -k 10 300 unshare --mount --pid --fork --kill-child env -i TERM=dumb LC_ALL=C.UTF-8 HOME=/root \
        DEBIAN_FRONTEND=noninteractive MANPAGER=cat PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -euc '
            mount -t proc proc "$0/proc"
            mount --rbind /sys "$0/sys"
            mount --rbind /dev "$0/dev"
            exec chroot "$0" "$@"' "$system" "$@"
}

# files: what the system has, apart from what the package manager writes about itself.
files() {
    (cd "$system" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./run -o -path ./dev -o -path ./tmp -o -path ./var/cache -o \
        -path ./var/log -o -path ./var/lib/dpkg -o -path ./var/lib/apt \) -prune -o -print | LC_ALL=C sort)
}

install_packages() {
    cp "${debs[@]}" "$system/tmp"
    inside sh -euc 'apt-get install -y --no-install-recommends /tmp/*.deb'
}

# What --quick does as root and as an ordinary user; the list of known bugs is part of the package.
selftest() {
    inside "$@" uffd-selftest run --quick --known-failures /usr/share/uffd-selftest/known-bugs.json
}

versions() {
    inside uffd-selftest --version | grep -F "uffd-selftest $(<"$REPO/VERSION"), "
    inside uffd-pager --version | grep -Fx "uffd-pager $(<"$REPO/VERSION")"
}

# The lines are justified: there may be several spaces between two words.
manuals() {
    inside man uffd-selftest | grep -F 'test whether userfaultfd works on this host'
    inside man uffd-pager | tr -s ' ' | grep -F 'Serves the memory of virtual machines'
    inside man uffd-pager-serve | grep -F -e --control
}

# The files that the manual pages name are there.
manual_files() {
    local page file
    for page in uffd-selftest uffd-pager; do
        inside man "$page" | grep -oE '/usr/share/[a-z/.-]+' >"$work/named"
        while read -r file; do inside test -r "$file" || { echo "$page(1) names $file" && return 1; }; done <"$work/named"
    done
}

# The three shells complete options of both programs, and the values of one that has few.
completions() {
    cp "$REPO"/Scripts/check/packages/complete.* "$system/tmp"
    inside bash /tmp/complete.bash uffd-selftest run --shu | grep -Fx -e --shuffle
    inside bash /tmp/complete.bash uffd-selftest run --format kci | grep -Fx kcidb
    inside bash /tmp/complete.bash uffd-pager serve --contr | grep -Fx -e --control
    inside zsh -f /tmp/complete.zsh 'uffd-selftest run --shu' ffle
    inside zsh -f /tmp/complete.zsh 'uffd-selftest run --format kci' db
    inside zsh -f /tmp/complete.zsh 'uffd-pager serve --contr' ol
    inside env HOME=/tmp fish -c 'complete -C "uffd-selftest run --shu"' | grep -e '^--shuffle\b'
    inside env HOME=/tmp fish -c 'complete -C "uffd-selftest run --format kci"' | grep -e '^kcidb\b'
    inside env HOME=/tmp fish -c 'complete -C "uffd-pager serve --contr"' | grep -e '^--control\b'
    rm "$system"/tmp/complete.*
}

# The units are good ones for the systemd of this system, which prints what it does not like.
units() {
    inside env SYSTEMD_LOG_TARGET=console systemd-analyze --man=no verify uffd-pager.service uffd-pager-firecracker@example.socket \
        uffd-pager-firecracker@example.service 2>&1 | tee "$work/units"
    [[ ${PIPESTATUS[0]} == 0 && ! -s $work/units ]]
}

# What the guide says: an instance of the socket that starts with the system.
enabling() {
    inside systemctl enable uffd-pager.service uffd-pager-firecracker@web.socket
    [[ -L $system/etc/systemd/system/sockets.target.wants/uffd-pager-firecracker@web.socket ]]
}

# The host was set up, and what undoes this does not go away unnoticed.
nothing_left() {
    local state=$system/var/lib/swift-userfaultfd
    mkdir "$state"
    echo true >"$state/undo"
    # Libraries came with them that packages of the system would merely like to have.
    inside apt-get -o APT::AutoRemove::RecommendsImportant=false -o APT::AutoRemove::SuggestsImportant=false \
        purge -y --autoremove uffd-selftest uffd-pager | tee "$work/purge"
    grep -F 'setup-host.sh --undo' "$work/purge"
    rm -r "$state"
    files >"$work/after"
    diff "$work/before" "$work/after"
}

user=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all)
for deb in "${debs[@]}"; do
    check "lintian-$(basename "$deb" | cut -d_ -f1)" lintian --allow-root --fail-on error,warning "$deb"
done
for suite; do
    fresh "$suite"
    system=$work/$suite
    cp -a --reflink=auto "$cache/$suite" "$system"
    cp -L /etc/resolv.conf "$system/etc/resolv.conf"
    check "$suite-lists" inside apt-get update
    check "$suite-shells" inside apt-get install -y --no-install-recommends zsh fish
    files >"$work/before"
    check "$suite-install" install_packages
    check "$suite-versions" versions
    check "$suite-manuals" manuals
    check "$suite-manual-files" manual_files
    check "$suite-completions" completions
    check "$suite-units" units
    check "$suite-selftest-root" selftest
    check "$suite-selftest-user" selftest "${user[@]}"
    check "$suite-pager" inside uffd-pager probe
    check "$suite-enabling" enabling
    if grep -qw cgroup2 /proc/filesystems; then
        check "$suite-systemd" "$REPO/Scripts/check/packages/boot.sh" "$system" "$REPO/Scripts/check/packages/units.sh"
    else
        skipped=$((skipped + 1))
        echo "$suite-systemd: skipped: this kernel has no cgroup2"
    fi
    check "$suite-removal" nothing_left
    rm -rf "$system"
done
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
