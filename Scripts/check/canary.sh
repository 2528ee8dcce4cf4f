#!/usr/bin/env bash
# A program can use the library's API if it imports only this library, even with every upcoming feature enabled.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

swift build --target UserfaultFD --quiet
bin=$(swift build --show-bin-path)
flags=(-swift-version 6 -parse-as-library -c -o /dev/null -warnings-as-errors -strict-memory-safety -I "$bin/Modules" -package-name canary)
for feature in ExistentialAny InternalImportsByDefault MemberImportVisibility NonisolatedNonsendingByDefault; do
    flags+=(-enable-upcoming-feature "$feature")
done
mapfile -t -O ${#flags[@]} flags < <(module_maps "$bin" .build)
swiftc "${flags[@]}" Tests/ImportCanary/Canary.swift
