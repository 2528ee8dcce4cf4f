#!/usr/bin/env bash
# Serving a fault allocates nothing and counts no references: the counts of 1,000 and of 100,000 faults are equal.
set -euo pipefail
cd "$(dirname "$0")/.."

package=(--package-path Tests/LinkageTest --scratch-path .build-linkage -c release)
swift build "${package[@]}" --quiet
program=$(swift build "${package[@]}" --show-bin-path)/fault-loop
counter=.build-linkage/counter.so
"${CC:-clang}" -shared -fPIC -O1 -o "$counter" Tests/LinkageTest/counter.c -ldl

count() {
    LD_PRELOAD=$PWD/$counter timeout 120 "$program" "$@" 2>"$counter.txt" >/dev/null
    cat "$counter.txt"
}

few=$(count 1000)
many=$(count 100000)
proof=$(count 100000 allocate)
echo "  1,000 faults: $few"
echo "100,000 faults: $many"
[ "$many" != "$proof" ] || { echo "the counter does not see allocations: $proof" >&2; exit 1; }
[ "$few" = "$many" ] || { echo "serving a fault costs allocations or reference counts" >&2; exit 1; }
