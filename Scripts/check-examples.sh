#!/usr/bin/env bash
# Every example of Examples compiles and runs: Scripts/check-examples.sh [NAME]...
set -euo pipefail
cd "$(dirname "$0")/.."
export SWIFT_BACKTRACE=enable=no

package=(--package-path Examples --scratch-path .build-examples)
swift build "${package[@]}" --quiet
programs=$(swift build "${package[@]}" --show-bin-path)
[ $# -gt 0 ] || set -- $(ls Examples/Sources)
for example; do
    echo "== $example"
    timeout 60 "$programs/$example"
done
