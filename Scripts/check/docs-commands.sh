#!/usr/bin/env bash
# Runs the commands of README.md and docs in a fresh clone of the last commit; docs-commands.py says which.
# This builds everything again, which takes some minutes.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet "file://$REPO" "$work/swift-userfaultfd"
cd "$work/swift-userfaultfd"
mapfile -t pages < <(git ls-files '*.md')
export SWIFT_BACKTRACE=enable=no
python3 -B Scripts/check/docs-commands.py "${pages[@]}"
