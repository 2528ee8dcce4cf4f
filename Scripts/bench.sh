#!/usr/bin/env bash
# Builds uffd-bench and runs it with the options given.
#
# usage: Scripts/bench.sh [UFFD-BENCH OPTIONS...]
#        Scripts/bench.sh --smoke      every scenario once, whatever its times: does it run and report?
set -euo pipefail
cd "$(dirname "$0")/.."

swift build -c release --product uffd-bench >&2
bench=$(swift build -c release --show-bin-path)/uffd-bench
[ "${1:-}" = --smoke ] || exec "$bench" "$@"

report=$(mktemp)
trap 'rm -f "$report"' EXIT
timeout 500 "$bench" --quick --rounds 1 --no-gates --format json --output "$report"
python3 - "$report" <<'PYTHON'
import json
import sys

# What a host may lack; everything else must be measured.
lawful = ("the kernel has no", "not enough huge pages", "there is one processor", "clear_refs cannot be written")
report = json.load(open(sys.argv[1]))
missing = [s for s in report["scenarios"] if s.get("unavailable")]
for scenario in missing:
    print(f"{scenario['name']}: {scenario['unavailable']}")
wrong = [s["name"] for s in missing if not s["unavailable"].startswith(lawful)]
measured = len(report["scenarios"]) - len(missing)
print(f"{measured} scenarios measured, {len(missing)} not to be had here")
sys.exit(f"not measured: {', '.join(wrong)}" if wrong or not measured else 0)
PYTHON
