#!/usr/bin/env bash
# Lints the public CI's workflows, which cannot run here: YAML style, GitHub's schema, and that every script that
# they call is there.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

python=$(python_with yamllint check-jsonschema)
"$python" -m yamllint --strict -d '{extends: default, rules: {document-start: disable,
    line-length: {max: 120}, truthy: {check-keys: false}}}' .github/workflows
"$python" -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

missing=0
# shellcheck disable=SC2013 # one name a line
for script in $(grep -rhoE 'Scripts/[A-Za-z/_-]+\.sh' .github/workflows | sort -u); do
    [[ -x $script ]] || { note "a workflow calls $script, which does not exist" && missing=1; }
done
exit $missing
