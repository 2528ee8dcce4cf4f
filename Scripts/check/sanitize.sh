#!/usr/bin/env bash
# Runs the unit tests under a sanitizer: Scripts/check/sanitize.sh [thread|address] [FILTER]; by default under both.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

# The tests cause SIGBUS and SIGSEGV on purpose. The backtracer of a sanitized process may hang.
export TSAN_OPTIONS=handle_sigbus=0:handle_segv=0:halt_on_error=1:suppressions=$PWD/Scripts/check/sanitize-thread.supp
export ASAN_OPTIONS=handle_sigbus=0:handle_segv=0:detect_leaks=1
export SWIFT_BACKTRACE=enable=no

for sanitizer in ${1:-thread address}; do
    echo "== $sanitizer sanitizer"
    for package in . Tests/AdapterTests; do
        scratch=.build-$sanitizer
        [ "$package" = . ] || scratch+=-adapters
        options=(--sanitize="$sanitizer" --package-path "$package" --scratch-path "$scratch")
        swift build --build-tests --quiet "${options[@]}"
        # The tests of the state machine use no threads and take ten times as long under a sanitizer.
        timeout -k 10 600 swift test --skip-build --disable-xctest --no-parallel "${options[@]}" \
            --skip StateMachineTests --filter "${2:-UserfaultFDTests|UserfaultPager}" </dev/null
    done
done
