#!/usr/bin/env bash
# Run the unit tests under a sanitizer: Scripts/sanitize.sh [thread|address] [FILTER]; without arguments both.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests make SIGBUS on purpose, and a backtracer of a sanitized process may hang.
export TSAN_OPTIONS=handle_sigbus=0:halt_on_error=1
export ASAN_OPTIONS=handle_sigbus=0:detect_leaks=1
export SWIFT_BACKTRACE=enable=no

for sanitizer in ${1:-thread address}; do
    echo "== $sanitizer sanitizer"
    timeout -k 10 900 swift test --disable-xctest --no-parallel --sanitize="$sanitizer" \
        --scratch-path ".build-$sanitizer" --filter "${2:-UserfaultFDTests}" </dev/null
done
