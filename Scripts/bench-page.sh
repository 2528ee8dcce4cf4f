#!/usr/bin/env bash
# Writes docs/performance.md's tables and pictures from a report of uffd-bench.
#
# usage: Scripts/bench-page.sh REPORT.json
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { sed -n '2,4p' "$0" >&2; exit 64; }
Scripts/bench-charts.sh "$1" docs/performance
python3 Scripts/bench-page.py "$1" docs/performance.md
