#!/usr/bin/env bash
# Run every program of Snippets, and compare how the last line begins that each prints.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
export SWIFT_BACKTRACE=enable=no

# What a program prints at its end; every one may also print "skipped: ..." on kernels or for users that cannot run it.
declare -A expected=(
    [Example]='the page holds 42'
    [StoppableReader]='the reader served 4 faults and stopped'
    [PassADescriptor]='the other process read 42'
    [FollowForks]='3 children and their children read their own page'
    [LazyFile]='1 fault served'
    [MoveAPage]='the page that was moved holds 7'
    [DirtyPages]='dirty pages: [3, 4, 11]'
)
# The file that LazyFile serves.
declare -A arguments=([LazyFile]=/proc/self/exe)
for snippet in Snippets/*.swift; do
    name=$(basename "$snippet" .swift)
    swift build --quiet --product "$name"
    last=$(timeout 60 "$(swift build --show-bin-path)/$name" ${arguments[$name]:+"${arguments[$name]}"} | tail -n 1)
    echo "$name: $last"
    case $last in
        "skipped: "*) [ -z "${CI:-}" ] || { echo "$name must not be skipped here" >&2; exit 1; } ;;
        "${expected[$name]:?no output is recorded for $name}"*) ;;
        *) echo "$name was to print: ${expected[$name]}" >&2; exit 1 ;;
    esac
done
