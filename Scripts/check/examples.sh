#!/usr/bin/env bash
# The examples compile and run: Scripts/check/examples.sh [NAME]...
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
export SWIFT_BACKTRACE=enable=no

# build PACKAGE: prints where its programs are. The packages share what they are built from.
build() {
    local package=(--package-path "$1" --scratch-path .build-examples)
    swift build "${package[@]}" --quiet >&2
    swift build "${package[@]}" --show-bin-path
}

programs=$(build Examples)
if [ $# = 0 ]; then
    set -- Examples/Sources/*
    if pkg-config --exists liblz4; then
        build Examples/CompressedFile >/dev/null
        set -- "$@" compressed-file
    else
        echo "compressed-file is not built: it needs liblz4-dev"
    fi
fi
for example; do
    example=${example##*/}
    echo "== $example"
    output=$(timeout 60 "$programs/$example")
    echo "$output"
    # What a tutorial shows, whatever the numbers are.
    shown=docs/swift-userfaultfd.docc/Resources/$example.txt
    if [[ -e $shown && $output != "skipped: "* ]]; then
        diff <(sed '1d' "$shown" | tr -s 0-9 N) <(tr -s 0-9 N <<<"$output") >&2 || die "$example does not print what $shown shows"
    fi
done
