#!/usr/bin/env bash
# Tests the kernel matrix's reports, and that docs/kernel-matrix.md is what the expected outcomes say. Boots nothing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
python3 -B -m unittest -q Tests/KernelMatrix/test_report.py
Scripts/matrix/kernel-matrix.sh table --check
