#!/usr/bin/env bash
# Compiles uffd-selftest for arm64 on an amd64 machine, as one static executable:
#   Scripts/package/cross-arm64.sh [--update] [FILE]     .build-arm64/uffd-selftest by default
#   Scripts/package/cross-arm64.sh --fetch               only fetches what it compiles with
# The compiler and the libraries for arm64 are those of Debian sid, because Swift's own toolchains for Linux bring only the
# libraries of the machine that they run on. They come from the mirror of the host's apt, and are unpacked into
# ~/.cache/swift-userfaultfd/arm64, or UFFD_ARM64_CACHE, once for each version of sid's swiftlang: 1.3 GB to download,
# 2.7 GB on disk. Nothing is installed. --update looks for a newer version.
# It takes about five minutes of two processors the first time. It needs root or unprivileged user namespaces, to give the
# compiler a root of its own, and a Swift toolchain for the package's dependencies.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/../debian.sh
source "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"

FOLDER=${UFFD_ARM64_CACHE:-$USER_CACHE/arm64}
TRIPLE=aarch64-unknown-linux-gnu
SDK=debian-arm64
# The parts of swiftlang that only a debugger or a machine without an operating system needs.
LEFT_OUT=(--exclude='*lldb*' --exclude='*/embedded' --exclude='./usr/share')
BUILD=$REPO/.build-arm64

update='' fetch_only=''
case ${1:-} in
    --update) update=1 && shift ;;
    --fetch) fetch_only=1 && shift ;;
esac
case ${1:-} in -h | --help) usage 0 ;; -*) usage 64 ;; esac
file=$(realpath -m "${1:-$BUILD/uffd-selftest}")

# candidate PACKAGE: the newest version of sid.
candidate() { apt-cache "${APT_OPTIONS[@]}" show "$1" 2>/dev/null | sed -n 's/^Version: //p' | sed -n 1p; }

# unpack FOLDER TAR-OPTIONS... : unpacks all packages of $work/files.
unpack() {
    local package
    mkdir -p "$1"
    for package in "$work"/files/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1" --keep-directory-symlink "${@:2}" || return 1
    done
    rm -rf "$work/files"
    mkdir -p "$work/files/partial"
}

# make_root GCC: a system with sid's compiler for this machine, in $work/root.
make_root() {
    note "fetching the compiler"
    download_all "$work/files" swiftlang "libstdc++-$1-dev" libc6-dev git bash coreutils ||
        die "the compiler cannot be fetched: $(download_problem)"
    unpack "$work/root" "${LEFT_OUT[@]}" || die "the compiler cannot be unpacked"
    [[ -e $work/root/usr/bin/sh ]] || ln -s bash "$work/root/usr/bin/sh"
    mkdir -p "$work/root"/{dev,proc,tmp,sdks}
}

# make_sdks GCC: the libraries and headers for arm64, as an SDK of the package manager, in $work/sdks.
make_sdks() {
    local bundle=$work/sdks/$SDK.artifactbundle
    local sysroot=$bundle/$SDK/sysroot swift
    note "fetching the libraries for arm64"
    local packages=(swiftlang libswiftlang libc6 libc6-dev "libstdc++-$1-dev" "libgcc-$1-dev")
    download "$work/files" "${packages[@]/%/:arm64}" linux-libc-dev ||
        die "the libraries for arm64 cannot be fetched: $(download_problem)"
    # What is linked, for the list of what a release is made of.
    # shellcheck disable=SC2016 # dpkg-deb expands it
    find "$work/files" -name '*.deb' -exec dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}\n' {} \; |
        LC_ALL=C sort >"$work/sdks/packages"
    unpack "$sysroot" "${LEFT_OUT[@]}" --exclude='./usr/libexec/swift/bin' --exclude='./usr/bin' ||
        die "the libraries for arm64 cannot be unpacked"
    # What only programs of the compiler itself are linked with.
    find "$sysroot/usr/libexec/swift/lib" -maxdepth 1 -type f -delete
    rm -r "$sysroot/usr/libexec/swift/lib/swift/host"
    # Where the compiler looks for them, with clang's own headers.
    for swift in swift swift_static; do
        rm -rf "$sysroot/usr/lib/$swift"
        ln -s "../libexec/swift/lib/$swift" "$sysroot/usr/lib/$swift"
    done
    [[ -e $sysroot/lib ]] || ln -s usr/lib "$sysroot/lib"
    cat >"$bundle/info.json" <<END
{"schemaVersion": "1.0", "artifacts": {"$SDK": {"type": "swiftSDK", "version": "1", "variants": [{"path": "$SDK"}]}}}
END
    # What links is the static one alone: both are named, because the package manager asks for either.
    cat >"$bundle/$SDK/swift-sdk.json" <<END
{"schemaVersion": "4.0", "targetTriples": {"$TRIPLE": {
    "sdkRootPath": "sysroot", "toolsetPaths": ["toolset.json"],
    "swiftResourcesPath": "sysroot/usr/lib/swift_static", "swiftStaticResourcesPath": "sysroot/usr/lib/swift_static"}}}
END
    echo '{"schemaVersion": "1.0", "swiftCompiler": {"extraCLIOptions": ["-use-ld=lld"]}}' >"$bundle/$SDK/toolset.json"
}

# make_toolchain: makes $FOLDER/VERSION/root and sdks, and points $FOLDER/current to it.
make_toolchain() {
    local version gcc part
    empty_world "$FOLDER/apt" "$ARCH" arm64
    update_lists sid
    version=$(candidate "swiftlang:$ARCH")
    [[ $version ]] || die "the mirror of apt has no swiftlang of Debian sid"
    # Modules of one compiler are nothing to another.
    [[ $(candidate swiftlang:arm64) == "$version" ]] ||
        die "sid's swiftlang is not the same for $ARCH and arm64 at this time: $version, $(candidate swiftlang:arm64)"
    gcc=$(apt-cache "${APT_OPTIONS[@]}" depends --important "gcc:$ARCH" | sed -nE 's/.* gcc-([0-9]+)(:.*)?$/\1/p' | sed -n 1p)
    mkdir -p "$FOLDER/$version"
    # An older version of this script did not say what is in them.
    [[ -e $FOLDER/$version/sdks/packages ]] || rm -rf "$FOLDER/$version/sdks"
    for part in root sdks; do
        [[ ! -d $FOLDER/$version/$part ]] || continue
        work=$(mktemp -d "$FOLDER/.work.XXXXXX")
        mkdir -p "$work/files/partial"
        "make_$part" "$gcc"
        mv -T "$work/$part" "$FOLDER/$version/$part"
        rm -rf "$work"
    done
    note "swiftlang $version: $(du -sh "$FOLDER/$version" | cut -f1) in $FOLDER/$version"
    ln -sfn "$version" "$FOLDER/current"
}

# dependencies: the package manager's own clones of them on this machine, as mirrors for the one in the root, which has
# neither this machine's git settings nor, maybe, a network.
dependencies() {
    local clone address separator=
    swift package --package-path "$REPO" --scratch-path "$BUILD/host" resolve >&2 || return 1
    echo '{"version": 1, "object": ['
    for clone in "$BUILD"/host/repositories/*; do
        address=$(git -C "$clone" config --get remote.origin.url) || return 1
        echo "$separator{\"original\": \"$address\", \"mirror\": \"file://$clone\"}"
        separator=,
    done
    echo ']}'
}

# in_root COMMAND...: runs a command in the root, with this package's folder where it is here. Mounts end with it.
# shellcheck disable=SC2016 # expanded in the namespace
in_root() {
    local namespace=(unshare --mount --fork)
    [[ $(id -u) == 0 ]] || namespace+=(--map-root-user)
    mkdir -p "$toolchain/root$REPO"
    "${namespace[@]}" bash -euo pipefail -c '
        root=$1 repo=$2 manifest=$3 sdks=$4
        shift 4
        for folder in /proc /dev "$repo"; do mount --rbind "$folder" "$root$folder"; done
        mount --bind "$sdks" "$root/sdks"
        mount --bind "$manifest" "$root$repo/Package.swift"
        mount -t tmpfs tmp "$root/tmp"
        exec chroot "$root" /usr/bin/env -i HOME=/tmp PATH=/usr/libexec/swift/bin:/usr/bin LANG=C.UTF-8 \
            bash -c "cd \"\$1\" && shift && exec \"\$@\"" bash "$repo" "$@"
    ' bash "$toolchain/root" "$REPO" "$BUILD/Package.swift" "$toolchain/sdks" "$@"
}

[[ $ARCH == amd64 ]] || die "this is for amd64: on arm64, Scripts/selftest.sh compiles the same"
command -v apt-get >/dev/null || die "sid's packages are fetched with apt-get, which is missing"
need readelf binutils
mkdir -p "$FOLDER" "$BUILD/configuration"
work=
trap 'rm -rf "$work"' EXIT
exec {lock}>"$FOLDER/.lock"
flock "$lock"
if [[ $update || ! -e $FOLDER/current/sdks/packages ]]; then make_toolchain; fi
toolchain=$(readlink -f "$FOLDER/current")
exec {lock}>&-
[[ ! $fetch_only ]] || exit 0

dependencies >"$BUILD/configuration/mirrors.json" || die "the package's dependencies cannot be fetched"
# The manifest tells users what is tested. Sid's compiler is older, and compiles the same.
version=$(basename "$toolchain" | cut -d. -f1,2)
sed "1s/\(swift-tools-version:\) .*/\1 $version/" "$REPO/Package.swift" >"$BUILD/Package.swift"
note "compiling with Swift ${toolchain##*/} for $TRIPLE"
in_root swift build -c release --swift-sdks-path /sdks --swift-sdk "$SDK" --scratch-path "$BUILD/build" \
    --config-path "$BUILD/configuration" --product uffd-selftest -Xswiftc -static-executable -Xlinker -s >&2
built=$BUILD/build/$TRIPLE/release/uffd-selftest
readelf -h "$built" | grep -q 'Machine: *AArch64' || die "$built is not for arm64"
if readelf -l "$built" | grep -q INTERP; then die "$built is not static"; fi
install -D -m 755 "$built" "$file"
cp "$toolchain/sdks/packages" "$BUILD/packages"
note "$file: $(stat -c %s "$file") bytes"
