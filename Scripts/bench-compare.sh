#!/usr/bin/env bash
# Builds uffd-bench at another commit and here, runs both in turns, and prints how they compare.
#
# usage: Scripts/bench-compare.sh BASE [UFFD-BENCH OPTIONS...]
#
# Ratios are this tree's time to BASE's, each against its own C twin: below 1 is faster. Without options: --quick, ioctl/* and fault/*/same-core.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,6p' "$0" >&2; exit 64; }
base=$(git rev-parse --verify "$1^{commit}")
shift
[ $# -gt 0 ] || set -- --quick --scenario 'ioctl/*' --scenario 'fault/*/same-core'

work=$(mktemp -d)
trap 'git worktree remove --force "$work/base" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/base" "$base"

# build TREE: prints where its uffd-bench is. Older commits have it in the package of the libraries.
build() {
    local package=$1/Benchmarks
    [ -d "$package" ] || package=$1
    package=(--package-path "$package" --scratch-path "$1/.build-bench" -c release)
    swift build "${package[@]}" --product uffd-bench >&2
    echo "$(swift build "${package[@]}" --show-bin-path)/uffd-bench"
}
before=$(build "$work/base")
after=$(build .)

# In turns, and the first of each pair changes, so that the machine's drift meets both.
rounds=6
for round in $(seq 1 $rounds); do
    order="before after"
    [ $((round % 2)) -eq 0 ] && order="after before"
    for side in $order; do
        "${!side}" "$@" --no-gates --format json --output "$work/$side.$round.json" 2>"$work/log" || {
            echo "bench-compare.sh: ${!side} failed with $?:" >&2
            cat "$work/log" >&2
            exit 1
        }
    done
    echo "round $round of $rounds" >&2
done
python3 Scripts/bench-compare.py "$work" "$rounds"
