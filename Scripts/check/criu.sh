#!/usr/bin/env bash
# Restores tasks that CRIU has dumped, with uffd-pager in place of CRIU's own daemon:
#   Scripts/check/criu.sh [--compare ROUNDS] [CASE...]
# Ends with a line "N passed, N failed, N skipped"; with --compare, prints a table of both daemons instead. It fetches CRIU
# of Debian trixie with its libraries, and builds the program. UFFD_PAGER names one that is built already.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

case ${1:-} in -h | --help) usage 0 ;; esac
skip() {
    note "skipped: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
[[ $(id -u) == 0 ]] || skip "CRIU restores tasks for root only"
criu=$(Scripts/check/criu/fetch.sh)
for feature in uffd uffd-noncoop; do
    "$criu" check --feature "$feature" >/dev/null 2>&1 || skip "this kernel has no $feature, which CRIU needs"
done
if [[ ! ${UFFD_PAGER:-} ]]; then
    package=(--package-path Tools --scratch-path .build-tools)
    # As the step before has built it; times and memory are those of an optimised program.
    if pkg-config --exists libnbd 2>/dev/null; then package+=(--traits NBD); fi
    case " $* " in *" --compare "*) package+=(-c release) ;; esac
    swift build "${package[@]}" --product uffd-pager >&2
    UFFD_PAGER=$(swift build "${package[@]}" --show-bin-path)/uffd-pager
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clang -O2 -Wall -Wextra -Werror -o "$work/dumpee" Tests/Clients/CRIU/dumpee.c
python3 -B Scripts/check/criu/run.py --criu "$criu" --pager "$UFFD_PAGER" --dumpee "$work/dumpee" "$@"
