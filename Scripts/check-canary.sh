#!/usr/bin/env bash
# What a user's program sees compiles with the library's name imported alone, and with every upcoming feature on.
set -euo pipefail
cd "$(dirname "$0")/.."

swift build --target UserfaultFD --quiet
bin=$(swift build --show-bin-path)
flags=(-swift-version 6 -parse-as-library -c -o /dev/null -warnings-as-errors -strict-memory-safety -I "$bin/Modules" -package-name canary)
for feature in ExistentialAny InternalImportsByDefault MemberImportVisibility NonisolatedNonsendingByDefault; do
    flags+=(-enable-upcoming-feature "$feature")
done
for map in "$bin"/*.build/module.modulemap .build/checkouts/*/Sources/*/include/module.modulemap; do
    [ ! -f "$map" ] || flags+=(-Xcc "-fmodule-map-file=$map")
done
swiftc "${flags[@]}" Tests/ImportCanary/Canary.swift
