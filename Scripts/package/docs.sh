#!/usr/bin/env bash
# Build the documentation of a library, UserfaultFD unless another is named, into .build-docs/TARGET.doccarchive.
# A warning is an error.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

target=${1:-UserfaultFD}
graphs=.build-docs/symbols-$target
rm -rf "$graphs"
mkdir -p "$graphs"
# Symbols come with compiling, so the library is compiled anew.
rm -rf ".build-docs/build/debug/$target.build"
swift build --scratch-path .build-docs/build --enable-all-traits --target "$target" --quiet \
    -Xswiftc -emit-symbol-graph -Xswiftc -emit-symbol-graph-dir -Xswiftc "$PWD/$graphs"
find "$graphs" -name '*.symbols.json' ! -name "$target.symbols.json" ! -name "$target@*.symbols.json" -delete
docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
"$docc" convert "Sources/$target/$target.docc" --additional-symbol-graph-dir "$graphs" \
    --output-path ".build-docs/$target.doccarchive" --warnings-as-errors
