#!/usr/bin/env bash
# Runs every program of Snippets. A program of a tutorial prints what the tutorial shows; of the others the start of the last line
# is compared.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
export SWIFT_BACKTRACE=enable=no

# What a program prints at its end; any program may instead print "skipped: ..." on kernels or for users that cannot run it.
declare -A expected=(
    [StoppableReader]='the reader served 4 faults and stopped'
    [PassADescriptor]='the other process read 42'
    [LazyFile]='1 fault served'
    [MoveAPage]='the page that was moved holds 7'
)
# The file that LazyFile serves.
declare -A arguments=([LazyFile]=/proc/self/exe)
for snippet in Snippets/*.swift; do
    name=$(basename "$snippet" .swift)
    swift build --quiet --product "$name"
    output=$(timeout 60 "$(swift build --show-bin-path)/$name" ${arguments[$name]:+"${arguments[$name]}"})
    last=$(tail -n 1 <<<"$output")
    echo "$name: $last"
    shown=docs/swift-userfaultfd.docc/Resources/$name.txt
    if [[ $last == "skipped: "* ]]; then
        [ -z "${CI:-}" ] || die "$name must not be skipped here"
    elif [ -e "$shown" ]; then
        diff "$shown" - <<<"\$ swift run --quiet $name"$'\n'"$output" >&2 || die "$name does not print what $shown shows"
    elif [[ $last != "${expected[$name]:?no output is recorded for $name}"* ]]; then
        die "$name was to print: ${expected[$name]}"
    fi
done
