#!/usr/bin/env bash
# Builds uffd-bench at another commit and in this tree, runs both in turns, and compares them:
#   Scripts/bench/compare.sh BASE [UFFD-BENCH OPTIONS...]
# A ratio is the time in this tree divided by the time at BASE, each relative to its own C twin: below 1 is faster.
# Default options: --quick --scenario 'ioctl/*' --scenario 'fault/*/same-core'
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
[ $# -ge 1 ] || usage 64
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
declare -A bench
bench[before]=$(build "$work/base")
bench[after]=$(build .)

# They take turns, and the first of each pair changes, so that drift of the machine affects both equally.
rounds=6
for round in $(seq 1 $rounds); do
    order="before after"
    [ $((round % 2)) -eq 0 ] && order="after before"
    for side in $order; do
        "${bench[$side]}" "$@" --no-gates --format json --output "$work/$side.$round.json" 2>"$work/log" || {
            note "${bench[$side]} failed with $?:"
            cat "$work/log" >&2
            exit 1
        }
    done
    echo "round $round of $rounds" >&2
done
python3 -B Scripts/bench/results.py compare "$work" "$rounds"
