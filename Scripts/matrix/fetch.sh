#!/usr/bin/env bash
# fetch.sh [--machine NAME] [SERIES|VERSION...]: finds the newest Debian cloud kernel of each series (6.12), or the one of
# exactly this version (6.12.96, 7.3~rc7), and unpacks it into the cache folder:
#   CACHE/SERIES/VERSION/{vmlinuz,release}, and CACHE/SERIES/current -> the newest
# --machine arm64-4k or arm64-16k: kernels for arm64 with pages of 4 or 16 KiB, and a busybox for it; Debian has no cloud
# kernel with 16 KiB, so that one comes with the modules of its disk, in VERSION/modules.
# It uses the mirror of the host's apt, and does not change the host's sources and lists.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# shellcheck source=SCRIPTDIR/../debian.sh
source "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"

SUITES=(bullseye bookworm trixie forky sid experimental)
# In the order in which they can be loaded.
MODULES=(nvme-auth nvme-core nvme)

if [[ ${1:-} == --machine ]]; then
    choose_machine "${2:?}"
    shift 2
fi
if is_foreign; then empty_world "$CACHE/apt" "${MACHINE%-*}"; else apt_world "$CACHE/apt"; fi

# available: "VERSION PACKAGE" of every kernel package of this flavour in the lists, newest version last.
available() {
    apt-cache "${APT_OPTIONS[@]}" dumpavail |
        awk -v "flavour=$FLAVOUR" '
            /^Package: /  { package = $2 }
            /^Version: /  { version = $2 }
            /^$/          {
                if (package ~ "^linux-(image|binary|modules)-[0-9].*-" flavour "$" && package !~ "-rt-") print version, package
            }' |
        sort -V -u
}

# pick NAME LIST-FILE: prints "VERSION PACKAGE" of the newest kernel of a series, or of the kernel of a version.
pick() {
    if is_series "$1"; then
        grep -E " linux-image-${1//./\\.}[.+-]" "$2" | tail -n1
    else
        grep -E "^${1//./\\.}-[^ ]* linux-image-" "$2" | tail -n1
    fi
}

# unpack PACKAGE=VERSION: unpacks it into $work/root.
unpack() {
    local package=${1%%=*}
    download "$work" "$1" || { note "$package: $(download_problem)"; return 1; }
    dpkg-deb -x "$work/$package"_*.deb "$work/root" || { note "$package is broken"; return 1; }
}

# fetch_busybox: for guests that cannot use the host's.
fetch_busybox() {
    [[ ! -x $CACHE/busybox ]] || return 0
    work=$(mktemp -d "$CACHE/.unpack.XXXXXX")
    unpack busybox-static || return 1
    install -m 755 "$work/root/usr/bin/busybox" "$CACHE/busybox"
    rm -rf "$work"
}

# put_modules FOLDER: the modules of $work/root, uncompressed, and numbered in their order.
put_modules() {
    local name number=0 file
    mkdir "$1"
    for name in "${MODULES[@]}"; do
        file=$(find "$work/root" -name "$name.ko*" -type f | sed -n 1p)
        [[ $file ]] || continue
        number=$((number + 1))
        case $file in
            *.xz) need xz xz-utils && xz -dc "$file" ;;
            *.zst) need zstd zstd && zstd -dc "$file" ;;
            *) cat "$file" ;;
        esac >"$1/$number-$name.ko" || return 1
    done
}

# fetch_kernel NAME LIST-FILE
fetch_kernel() {
    local name=$1 version package release image series
    series=$CACHE/$(series_of "$name")
    read -r version package < <(pick "$name" "$2") ||
        { note "$name: no suite of the mirror has such a kernel"; return 1; }
    release=${package#linux-image-}
    # Since 6.19, the image package only depends on the one that contains the kernel.
    if grep -qFx "$version linux-binary-$release" "$2"; then package=linux-binary-$release; fi
    if [[ -e $series/$version/vmlinuz ]]; then
        echo "$name: $release ($version), cached"
    else
        work=$(mktemp -d "$CACHE/.unpack.XXXXXX")
        unpack "$package=$version" || return 1
        image=$(find "$work/root" -name 'vmlinuz*' -type f | sed -n 1p)
        [[ $image ]] || { note "$name: no kernel file in $package"; return 1; }
        mkdir -p "$work/kernel" "$series"
        if [[ $FLAVOUR != cloud-* ]]; then
            package=linux-modules-$release
            if grep -qFx "$version $package" "$2"; then unpack "$package=$version" || return 1; fi
            put_modules "$work/kernel/modules" || return 1
        fi
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
for name; do [[ $name == busybox ]] || check_kernel "$name"; done
mkdir -p "$CACHE"
exec {lock}>"$CACHE/.lock"
flock "$lock"
update_lists "${SUITES[@]}"
available >"$APT/kernels"
failed=0
if is_foreign; then fetch_busybox || exit; fi
for name; do [[ $name == busybox ]] || fetch_kernel "$name" "$APT/kernels" || failed=1; done
exit $failed
