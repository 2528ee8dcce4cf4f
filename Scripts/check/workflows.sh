#!/usr/bin/env bash
# Checks what only the public hosts run: the CI's workflows, the issue forms and the index's file. YAML style, their
# schemas, and that every script that a workflow calls exists.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

python=$(python_with yamllint check-jsonschema)
"$python" -m yamllint --strict -d '{extends: default, rules: {document-start: disable,
    line-length: {max: 120}, truthy: {check-keys: false}}}' .github .spi.yml
"$python" -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
"$python" -m check_jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml

missing=0
# shellcheck disable=SC2013 # one name a line
for script in $(grep -rhoE 'Scripts/[A-Za-z/_-]+\.sh' .github/workflows | sort -u); do
    [[ -x $script ]] || { note "a workflow calls $script, which does not exist" && missing=1; }
done
exit $missing
