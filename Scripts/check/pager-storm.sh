#!/usr/bin/env bash
# The pager's storm, at length: Scripts/check/pager-storm.sh [FAULTS]; 10 million faults for each way of serving by default.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

# Debug code would spend its time elsewhere, and tests that see the engine's inside need it to be told.
export PAGER_STORM_FAULTS=${1:-10000000} SWIFT_BACKTRACE=enable=no
exec swift test -c release -Xswiftc -enable-testing --scratch-path .build-storm --disable-xctest --no-parallel \
    --filter UserfaultPagerTests.StormTests
