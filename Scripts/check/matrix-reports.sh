#!/usr/bin/env bash
# Tests the reports of the kernel matrix and of the soak test, and compares docs/kernel-matrix.md with the expected outcomes. Boots nothing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
python3 -B -m unittest -q Tests/KernelMatrix/test_{report,soak}.py
Scripts/matrix/kernel-matrix.sh table --check
