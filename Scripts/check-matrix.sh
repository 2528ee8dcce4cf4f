#!/usr/bin/env bash
# Tests the kernel matrix's reports, and that docs/kernel-matrix.md is what the expected outcomes say. Boots nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -B -m unittest -q Tests/KernelMatrix/test_report.py
# Before outcomes are recorded there is nothing to write the page from.
[ ! -d Tests/KernelMatrix/expected ] || Scripts/kernel-matrix.sh table --check
