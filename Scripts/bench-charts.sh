#!/usr/bin/env bash
# Draws the pictures of a uffd-bench report into a folder.
#
# usage: Scripts/bench-charts.sh REPORT.json FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 2 ] || { sed -n '2,4p' "$0" >&2; exit 64; }

environment="${XDG_CACHE_HOME:-$HOME/.cache}/swift-userfaultfd/charts"
if [ ! -x "$environment/bin/python3" ]; then
    python3 -m venv "$environment" || { echo "bench-charts.sh: python3-venv is needed" >&2; exit 1; }
    "$environment/bin/pip" install --quiet matplotlib
fi
exec "$environment/bin/python3" Scripts/bench-charts.py "$1" "$2"
