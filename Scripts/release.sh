#!/usr/bin/env bash
# Makes the files of a release in .build-release/VERSION:
#   Scripts/release.sh VERSION     checks everything first; the working tree is clean, and VERSION is that of the file VERSION
#   Scripts/release.sh --trial     the same files without the checks, of the last commit and for the version of the file VERSION
# The files: the source, the versions that its dependencies have here (Package.resolved), uffd-selftest as one static file and as
# an installed kselftest, the failures that kernels are known for, the Debian packages, the licences of all that is linked, an
# SBOM in CycloneDX, SHA256SUMS of these, and the section of CHANGELOG.md as release-notes.md.
# On x86_64 also the static file for arm64, which Scripts/package/cross-arm64.sh compiles. It publishes nothing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=SCRIPTDIR/package/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/package/tree.sh"
cd "$REPO"
# What is released is built here.
unset UFFD_SELFTEST UFFD_PAGER UFFD_PACKAGES

[[ $# == 1 ]] || usage 64
trial=
case $1 in
    -h | --help) usage 0 ;;
    --trial) trial=1 version=$(<VERSION) ;;
    -*) usage 64 ;;
    *) version=$1 ;;
esac

# section HEADING: prints the section of the changelog with a heading that begins with this.
section() {
    awk -v "heading=## $1" '
        /^## / { inside = ($0 == heading || index($0, heading " - ") == 1); next }
        inside' CHANGELOG.md
}

# check_api TAG: a release that may not break sources does not. Code behind traits is not compared: Swift 6.3 compiles it for
# neither side, whatever traits are enabled.
check_api() {
    local old=${1%.*} new=${version%.*} log=.build-release/api.log
    note "comparing the public declarations with $1"
    # On one processor: Swift 6.3.1 crashes when its tasks look up a library of the system, libnbd, at the same time.
    taskset -c "$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')" \
        swift package diagnose-api-breaking-changes "$1" >"$log" 2>&1 && return
    grep -qE '[0-9] breaking change' "$log" || die "the comparison with $1 failed: see $log"
    grep -vE '^\[[0-9]+/' "$log" >&2
    # Before 1.0, a minor version may break sources.
    if [[ ${old%.*} == "${new%.*}" && ($old == "$new" || $new != 0.*) ]]; then
        die "$version may not break sources that $1 compiles"
    fi
}

mkdir -p .build-release
notes=$(section "$version")
if [[ $trial ]]; then
    notes=${notes:-$(section Unreleased)}
else
    [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "no version of a release: '$version'"
    [[ $version == "$(<VERSION)" ]] || die "the file VERSION says $(<VERSION)"
    changed=$(git status --porcelain) || die "git does not read this repository"
    [[ -z $changed ]] || die "the working tree is not clean"
    [[ $notes ]] || die "CHANGELOG.md has no section '## $version - DATE'"
    # The nearest version before this one.
    tags=$(git tag --merged HEAD --sort=-creatordate --list '[0-9]*') || die "git does not list the tags"
    last=$(grep -vxF -m1 "$version" <<<"$tags") || last=
    [[ -z $last ]] || check_api "$last"
    # The compiler for arm64 first: hours of checks would be lost if the mirror does not have it now.
    [[ $(uname -m) != x86_64 ]] || Scripts/package/cross-arm64.sh --fetch
    Scripts/test.sh
fi

release=$REPO/.build-release/$version
rm -rf "$release"
mkdir "$release"
machine=$(uname -m)
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
python=$(python_with 'cyclonedx-python-lib[json-validation]')

git archive --format=tar --prefix="swift-userfaultfd-$version/" HEAD | gzip -9n >"$release/swift-userfaultfd-$version.tar.gz"
Scripts/package/deb.sh "$release" >&2
cp Package.resolved "$release/Package.resolved"
cp Tools/Package.resolved "$release/Tools-Package.resolved"
licences Tools .build-tools libc.a libstdc++.a libgcc.a >"$release/licences.txt"
selftest=$release/uffd-selftest-$version-$machine
install -m 755 .build-static/release/uffd-selftest "$selftest"
install -m 644 Tests/KernelMatrix/known-bugs.json "$release/known-bugs.json"
if readelf -l "$selftest" | grep -q INTERP; then die "uffd-selftest is not static"; fi
UFFD_SELFTEST=$selftest Scripts/package/package-kselftest.sh "$release/kselftest-userfaultfd-$version-$machine.tar.gz"
[[ $machine != x86_64 ]] || Scripts/package/cross-arm64.sh "$release/uffd-selftest-$version-aarch64"
"$python" -B Scripts/package/sbom.py "$version" "$SOURCE_DATE_EPOCH" >"$release/swift-userfaultfd-$version.cdx.json"
if [[ ! $trial ]]; then UFFD_PACKAGES=$release Scripts/test.sh packages; fi
(cd "$release" && sha256sum -- * >SHA256SUMS)
printf '%s\n' "$notes" >"$release/release-notes.md"
ls -l "$release"
