#!/usr/bin/env bash
# Makes the Debian packages uffd-selftest and uffd-pager: deb.sh [FOLDER]     .build-packages by default
# The version is that of the file VERSION. UFFD_SELFTEST and UFFD_PAGER name the programs; by default they are built.
# The maintainer is DEBFULLNAME <DEBEMAIL>, or else the author of the last commit, if this is a clone.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

case ${1-} in
    -h | --help) usage 0 ;;
    -*) usage 64 ;;
esac
need dpkg-shlibdeps dpkg-dev
folder=$(realpath -m "${1-$REPO/.build-packages}")
cd "$REPO"
[[ ${UFFD_PAGER-} ]] || need_library libnbd libnbd-dev
mkdir -p "$folder"

# A version with a hyphen sorts after the release in Debian, one with a tilde before it.
version=$(tr - '~' <VERSION)-1
architecture=$(dpkg --print-architecture)
if [[ ${DEBEMAIL-} ]]; then
    maintainer="${DEBFULLNAME:-$DEBEMAIL} <$DEBEMAIL>"
else
    maintainer=$(git log -1 --format='%an <%ae>' 2>/dev/null) || die "no maintainer: set DEBFULLNAME and DEBEMAIL"
fi
# The time of every file, so that the same programs make the same packages. Files of a source archive have it.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y VERSION)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# documents NAME: what every package has in usr/share/doc.
documents() {
    local documents=$root/usr/share/doc/$1
    install -D -m 644 Scripts/package/debian/copyright "$documents/copyright"
    gzip -9n <CHANGELOG.md >"$documents/changelog.gz"
    {
        printf '%s (%s) unstable; urgency=medium\n\n  * New release; changelog.gz tells what has changed.\n\n' "$1" "$version"
        printf ' -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$documents/changelog.Debian.gz"
    gzip -9n "$root"/usr/share/man/man1/*.1 "$documents/licences.txt"
    if [[ -e Scripts/package/debian/$1.overrides ]]; then
        install -D -m 644 "Scripts/package/debian/$1.overrides" "$root/usr/share/lintian/overrides/$1"
    fi
    chmod -R u+rwX,go+rX,go-w "$root"
}

# depends NAME: the packages that have the program's shared libraries, as a list for the field Depends.
depends() {
    printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$1" "$1" >"$work/debian/control"
    (cd "$work" && dpkg-shlibdeps -O "debian/$1/usr/bin/$1") | sed -n 's/^shlibs:Depends=//p'
}

# pack NAME: makes the package of what is installed below $root.
pack() {
    local script size needed control=$root/DEBIAN fields
    fields=$(<"Scripts/package/debian/$1.control")
    mkdir -p "$control"
    # As dpkg-gencontrol counts: the same on every file system.
    size=$(find "$root" -path "$control" -prune -o -type f -printf '%s\n' -o -printf '1\n' | awk '{ total += int(($1 + 1023) / 1024) } END { print total }')
    if [[ $fields == *@DEPENDS@* ]]; then
        needed=$(depends "$1")
        fields=${fields//@DEPENDS@/"$needed"}
    fi
    fields=${fields//@VERSION@/"$version"}
    fields=${fields//@ARCHITECTURE@/"$architecture"}
    fields=${fields//@MAINTAINER@/"$maintainer"}
    printf '%s\n' "${fields//@SIZE@/"$size"}" >"$control/control"
    (cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$control/md5sums"
    for script in postinst prerm postrm; do
        if [[ -e Scripts/package/debian/$1.$script ]]; then
            install -m 755 "Scripts/package/debian/$1.$script" "$control/$script"
        fi
    done
    # Level 2 of xz: the default takes five times as long for a tenth of the size.
    dpkg-deb -z2 --root-owner-group --build "$root" "$folder/$1_${version}_$architecture.deb" >&2
}

for name in uffd-selftest uffd-pager; do
    root=$work/debian/$name
    "Scripts/package/$name.sh" "$root"
    documents "$name"
    pack "$name"
    echo "$folder/${name}_${version}_$architecture.deb"
done
