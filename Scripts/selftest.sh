#!/usr/bin/env bash
# Builds uffd-selftest as one static executable, and runs it with the arguments of this script.
# Installs on Debian and Ubuntu what the build needs besides a Swift toolchain. Cases that need huge pages, swap or
# other changes of the host run only as root: sudo .build-static/release/uffd-selftest, once this has built it.
set -euo pipefail
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"

command -v swift >/dev/null || die "no swift on the PATH: install a toolchain from https://swift.org"

# The linker needs the C and C++ libraries, static ones too, and the package manager needs git.
missing=()
command -v git >/dev/null || missing+=(git ca-certificates)
for file in libc.a libstdc++.a; do
    [ "$(${CC:-gcc} -print-file-name=$file 2>/dev/null || echo $file)" != $file ] || missing+=(g++)
done
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "install what is missing: git, and a C++ compiler with static libraries (libc.a and libstdc++.a)"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    {
        "${root[@]}" apt-get update
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
    } >&2
fi

# It has its own directory: in a shared one, a build with other flags would compile everything again.
build=(swift build -c release --scratch-path .build-static --product uffd-selftest
    -Xswiftc -static-executable -Xlinker -s)
echo "building uffd-selftest; the first time takes a minute or two" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${build[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
bin=$("${build[@]}" --show-bin-path)
rm "$log"
exec "$bin/uffd-selftest" "$@"
