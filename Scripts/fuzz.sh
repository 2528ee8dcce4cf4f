#!/usr/bin/env bash
# Feed arbitrary bytes to what parses the kernel's data: Scripts/fuzz.sh [SECONDS], 60 by default.
# What was found to crash is left in .build-fuzz/.
set -euo pipefail
cd "$(dirname "$0")/.."

export SWIFT_BACKTRACE=enable=no
out=.build-fuzz
mkdir -p "$out/corpus"
swift build --scratch-path "$out/build" --target UserfaultFD --quiet \
    -Xswiftc -sanitize=fuzzer -Xswiftc -enable-testing -Xswiftc -parse-as-library
bin=$(swift build --scratch-path "$out/build" --show-bin-path)
flags=(-swift-version 6 -parse-as-library -sanitize=fuzzer -sanitize=address -I "$bin/Modules")
for map in "$bin"/*.build/module.modulemap "$out"/build/checkouts/*/Sources/*/include/module.modulemap; do
    [ ! -f "$map" ] || flags+=(-Xcc "-fmodule-map-file=$map")
done
mapfile -t objects < <(find "$bin/UserfaultFD.build" "$bin/CUserfaultFD.build" "$bin/SystemPackage.build" \
    "$bin/CSystem.build" -name '*.o')
swiftc "${flags[@]}" Tests/Fuzz/Fuzz.swift "${objects[@]}" -o "$out/fuzz"
timeout -k 10 $((${1:-60} + 60)) "$out/fuzz" -max_total_time="${1:-60}" -max_len=320 -rss_limit_mb=2048 \
    -artifact_prefix="$out/" -print_final_stats=1 "$out/corpus" 2>&1 | tail -n 12
