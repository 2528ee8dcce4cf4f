#!/usr/bin/env bash
# Installs uffd-pager below a directory: uffd-pager.sh DIRECTORY
#   usr/bin/uffd-pager, its manual pages, completions for bash, zsh and fish, systemd units, the guides for operators,
#   licences, and examples: a configuration, a seccomp profile, and a client of the handoff in C.
# UFFD_PAGER names the program; by default it is built, with NBD if libnbd is installed. It needs no Swift on its host.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

case ${1-} in
    -h | --help) usage 0 ;;
    '' | -*) usage 64 ;;
esac
root=$(realpath -m "$1")
program=${UFFD_PAGER-}
cd "$REPO"
if [[ -z $program ]]; then
    package=(--package-path Tools --scratch-path .build-tools -c release --static-swift-stdlib
        --disable-local-rpath -Xlinker -s)
    if pkg-config --exists libnbd 2>/dev/null; then package+=(--traits NBD); fi
    swift build "${package[@]}" --product uffd-pager >&2
    program=$(swift build "${package[@]}" --show-bin-path)/uffd-pager
fi

put_program "$program" uffd-pager
for unit in Scripts/package/systemd/*; do put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"; done
documents=usr/share/doc/uffd-pager
for example in Scripts/package/uffd-pager.json Scripts/package/seccomp.json Examples/handoff-client.c; do
    put 644 "$example" "$documents/examples/${example##*/}"
done
# Each links to the other, also to its headings.
cp docs/{pagers,operating}.md "$root/$documents/"
for guide in operating pagers; do
    put_guide "$guide.md" "$documents" ../Examples/handoff-client.c=examples/handoff-client.c \
        ../Scripts/package/uffd-pager.json=examples/uffd-pager.json ../Scripts/package/seccomp.json=examples/seccomp.json \
        ../Scripts/package/systemd=../../../lib/systemd/system
done
mapfile -t installed < <(cd "$root" && find "$documents" -name '*.*' -type f | LC_ALL=C sort)
"$program" --experimental-dump-help | python3 -B Scripts/package/manual.py "$root/usr/share/man/man1" "${installed[@]/#//}"
# Not among the files that the manual page names: a package compresses it.
licences Tools .build-tools >"$root/$documents/licences.txt"
