#!/usr/bin/env bash
# A long stress test of the pager: Scripts/check/pager-storm.sh [FAULTS]; by default 10 million for each way of serving.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

# Optimised, because debug code spends its time elsewhere; testable, because the tests look into the engine.
export PAGER_STORM_FAULTS=${1:-10000000} SWIFT_BACKTRACE=enable=no
exec swift test -c release -Xswiftc -enable-testing --scratch-path .build-storm --disable-xctest --no-parallel \
    --filter "UserfaultPagerTests\..*StormTests"
