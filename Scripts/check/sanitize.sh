#!/usr/bin/env bash
# Run the unit tests under a sanitizer: Scripts/check/sanitize.sh [thread|address] [FILTER]; without arguments both.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

# The tests make SIGBUS and SIGSEGV on purpose, and a backtracer of a sanitized process may hang.
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
        # The state machine has no threads and takes ten times as long under either.
        timeout -k 10 600 swift test --skip-build --disable-xctest --no-parallel "${options[@]}" \
            --skip StateMachineTests --filter "${2:-UserfaultFDTests|UserfaultPager}" </dev/null
    done
done
