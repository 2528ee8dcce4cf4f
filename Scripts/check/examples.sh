#!/usr/bin/env bash
# The examples compile and run: Scripts/check/examples.sh [NAME]...
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
export SWIFT_BACKTRACE=enable=no

package=(--package-path Examples --scratch-path .build-examples)
swift build "${package[@]}" --quiet
programs=$(swift build "${package[@]}" --show-bin-path)
[ $# -gt 0 ] || set -- Examples/Sources/*
for example; do
    example=${example##*/}
    echo "== $example"
    timeout 60 "$programs/$example"
done
