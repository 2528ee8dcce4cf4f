#!/usr/bin/env bash
# Builds uffd-bench and runs it with the options given:
#   Scripts/bench/run.sh [UFFD-BENCH OPTIONS...]
#   Scripts/bench/run.sh --smoke              every scenario once, whatever its times: an error is exit code 2
#   Scripts/bench/run.sh --page [REPORT.json] writes docs/performance.md: the tables of a full report, and the findings
#                                             and pictures that follow from the tables
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

if [ "${1:-}" = --page ]; then
    shift
    exec "$(python_with matplotlib)" -B Scripts/bench/results.py page docs/performance.md "$@"
fi

package=(--package-path Benchmarks --scratch-path .build-bench -c release)
swift build "${package[@]}" --product uffd-bench >&2
bench=$(swift build "${package[@]}" --show-bin-path)/uffd-bench
[ "${1:-}" = --smoke ] || exec "$bench" "$@"

python3 -B -m unittest -q Tests/Bench/test_results.py
exec timeout 500 "$bench" --quick --rounds 1 --no-gates
