#!/usr/bin/env bash
# Lints the public CI's workflows, which cannot run here: YAML style, GitHub's schema, and that every script that
# they call is there.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=${XDG_CACHE_HOME:-$HOME/.cache}/swift-userfaultfd/linters
if [[ ! -x $environment/bin/check-jsonschema ]]; then
    mkdir -p "${environment%/*}"
    { python3 -m venv "$environment" && "$environment/bin/pip" -q install yamllint check-jsonschema; } ||
        { rm -rf "$environment" && echo "the linters cannot be installed (is python3-venv there?)" >&2 && exit 1; }
fi

"$environment/bin/yamllint" --strict -d '{extends: default, rules: {document-start: disable,
    line-length: {max: 120}, truthy: {check-keys: false}}}' .github/workflows
"$environment/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml

lacking=0
# shellcheck disable=SC2013 # one name a line
for script in $(grep -rhoE 'Scripts/[A-Za-z-]+\.sh' .github/workflows | sort -u); do
    [[ -x $script ]] || { echo "a workflow calls $script, which is not there" >&2 && lacking=1; }
done
exit $lacking
