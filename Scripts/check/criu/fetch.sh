#!/usr/bin/env bash
# Unpacks CRIU of Debian trixie with its libraries into the cache folder, and prints the path of a program that starts it.
# It uses the mirror of the host's apt, and installs nothing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../lib.sh"
# shellcheck source=SCRIPTDIR/../../debian.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../debian.sh"

FOLDER=${UFFD_CRIU_CACHE:-$USER_CACHE/criu}
program=$FOLDER/criu
# finish_if_there: ends the script if the program is there and starts.
finish_if_there() {
    if [[ -x $program ]] && "$program" --version >/dev/null 2>&1; then
        echo "$program"
        exit
    fi
}
finish_if_there
command -v apt-get >/dev/null || die "CRIU is fetched with apt-get, which is missing"
mkdir -p "$FOLDER"
exec {lock}>"$FOLDER/.lock"
flock "$lock"
# Another run may have fetched it meanwhile.
finish_if_there
empty_world "$FOLDER/apt"
update_lists trixie
download_all "$APT/cache/archives" criu || die "criu cannot be fetched: $(download_problem)"
rm -rf "$FOLDER/root" "$program"
mkdir "$FOLDER/root"
for package in "$APT"/cache/archives/*.deb; do dpkg-deb -x "$package" "$FOLDER/root"; done
libraries=$(dirname "$(find "$FOLDER/root" -name 'libprotobuf-c.so.*' | sed -n 1p)")
loader=$(find "$FOLDER/root" -name 'ld-linux*.so.*' | sed -n 1p)
# Quoted for the shell that starts it.
printf '#!/bin/sh\nexec %q --library-path %q %q "$@"\n' \
    "$loader" "$libraries" "$FOLDER/root/usr/sbin/criu" >"$program.new"
chmod +x "$program.new"
"$program.new" --version >/dev/null || die "the unpacked criu does not start"
mv "$program.new" "$program"
echo "$program"
