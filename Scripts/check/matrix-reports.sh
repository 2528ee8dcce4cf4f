#!/usr/bin/env bash
# Tests the reports of the kernel matrix, and compares docs/kernel-matrix.md with the expected outcomes. Boots nothing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
python3 -B -m unittest -q Tests/KernelMatrix/test_report.py
Scripts/matrix/kernel-matrix.sh table --check
