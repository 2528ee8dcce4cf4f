#!/usr/bin/env bash
# fetch.sh [SERIES|VERSION...]: finds the newest Debian cloud kernel of each series (6.12), or the one of exactly this
# version (6.12.96, 7.3~rc7), and unpacks it into the cache folder:
#   CACHE/SERIES/VERSION/{vmlinuz,release}, and CACHE/SERIES/current -> the newest
# It uses the mirror of the host's apt, and does not change the host's sources and lists.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# shellcheck source=SCRIPTDIR/../debian.sh
source "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"

SUITES=(bullseye bookworm trixie forky sid experimental)
apt_world "$CACHE/apt"

# available: "VERSION PACKAGE" of every cloud kernel package in the lists, newest version last.
available() {
    apt-cache "${APT_OPTIONS[@]}" dumpavail |
        awk -v "arch=$ARCH" '
            /^Package: /  { package = $2 }
            /^Version: /  { version = $2 }
            /^$/          { if (package ~ "^linux-(image|binary)-[0-9].*-cloud-" arch "$") print version, package }' |
        sort -V -u
}

# pick NAME LIST-FILE: prints "VERSION PACKAGE" of the newest kernel of a series, or of the kernel of a version.
pick() {
    if is_series "$1"; then
        grep -E " linux-image-${1//./\\.}[.+-][^ ]*-cloud-" "$2" | tail -n1
    else
        grep -E "^${1//./\\.}-[^ ]* linux-image-" "$2" | tail -n1
    fi
}

# fetch_kernel NAME LIST-FILE
fetch_kernel() {
    local name=$1 version package release image series
    series=$CACHE/$(series_of "$name")
    read -r version package < <(pick "$name" "$2") ||
        { note "$name: no suite of the mirror has such a cloud kernel"; return 1; }
    release=${package#linux-image-}
    # Since 6.19, the image package only depends on the one that contains the kernel.
    if grep -qFx "$version linux-binary-$release" "$2"; then package=linux-binary-$release; fi
    if [[ -e $series/$version/vmlinuz ]]; then
        echo "$name: $release ($version), cached"
    else
        work=$(mktemp -d "$CACHE/.unpack.XXXXXX")
        (cd "$work" && LC_ALL=C timeout 600 apt-get "${APT_OPTIONS[@]}" download "$package=$version") \
            >"$work/log" 2>&1 ||
            { note "$name: $package: $(grep -m1 '^E:' "$work/log" || tail -n1 "$work/log")"; return 1; }
        dpkg-deb -x "$work/$package"_*.deb "$work/root" || { note "$name: $package is broken"; return 1; }
        image=$(find "$work/root" -name 'vmlinuz*' -type f | sed -n 1p)
        [[ $image ]] || { note "$name: no kernel file in $package"; return 1; }
        mkdir -p "$work/kernel" "$series"
        mv "$image" "$work/kernel/vmlinuz"
        echo "$release" >"$work/kernel/release"
        mv -T "$work/kernel" "$series/$version" || return 1
        rm -rf "$work"
        echo "$name: $release ($version)"
    fi
    is_series "$name" || return 0
    ln -s "$version" "$series/.current.$$"
    mv -T "$series/.current.$$" "$series/current"
}

work=
trap 'rm -rf "$work"' EXIT
(($#)) || set -- "${ALL_SERIES[@]}"
for name; do check_kernel "$name"; done
mkdir -p "$CACHE"
exec {lock}>"$CACHE/.lock"
flock "$lock"
update_lists "${SUITES[@]}"
available >"$APT/kernels"
failed=0
for name; do fetch_kernel "$name" "$APT/kernels" || failed=1; done
exit $failed
