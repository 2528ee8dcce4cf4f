#!/usr/bin/env bash
# Restores tasks with CRIU's own daemon and with uffd-pager in turn, and writes the table and its picture into
# docs/performance.md: Scripts/bench/restore.sh [ROUNDS]     9 by default
# It needs root. UFFD_PAGER names a program that is built already.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

case ${1-} in
    -h | --help) usage 0 ;;
    -*) usage 64 ;;
esac
table=$(Scripts/check/criu.sh --compare "${1:-9}")
"$(python_with matplotlib)" -B Scripts/bench/results.py restores docs/performance.md <<<"$table"
