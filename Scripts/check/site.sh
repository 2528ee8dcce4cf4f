#!/usr/bin/env bash
# Opens the site that Scripts/package/docs.sh has made in a headless browser, and follows its links; site.py says how:
#   Scripts/check/site.sh [--screenshots FOLDER]
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

need chromium-headless-shell chromium-headless-shell
python3 -B Scripts/check/site.py "$@" .build-docs/site
