#!/usr/bin/env bash
# Builds uffd-bench and runs it with the options given.
#
# usage: Scripts/bench.sh [UFFD-BENCH OPTIONS...]
#        Scripts/bench.sh --smoke      every scenario once, whatever its times: what fails is an error, exit code 2
set -euo pipefail
cd "$(dirname "$0")/.."

package=(--package-path Benchmarks --scratch-path .build-bench -c release)
swift build "${package[@]}" --product uffd-bench >&2
bench=$(swift build "${package[@]}" --show-bin-path)/uffd-bench
[ "${1:-}" = --smoke ] || exec "$bench" "$@"

python3 -B -m unittest -q Tests/Bench/test_scripts.py
exec timeout 500 "$bench" --quick --rounds 1 --no-gates
