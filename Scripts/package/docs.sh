#!/usr/bin/env bash
# Builds the documentation of a library into .build-docs/LIBRARY.doccarchive; a warning is an error:
#   Scripts/package/docs.sh [LIBRARY]      UserfaultFD by default
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

target=${1:-UserfaultFD}
symbols=.build-docs/symbols
graphs=$symbols-$target
rm -rf "$graphs"
mkdir -p "$graphs" "$symbols"
# The compiler writes symbols while it compiles, so this library has to be compiled again.
rm -rf ".build-docs/build/debug/$target.build"
swift build --scratch-path .build-docs/build --enable-all-traits --target "$target" --quiet \
    -Xswiftc -emit-symbol-graph -Xswiftc -emit-symbol-graph-dir -Xswiftc "$PWD/$symbols"
cp "$symbols/$target.symbols.json" "$graphs"
find "$symbols" -name "$target@*.symbols.json" -exec cp {} "$graphs" \;
docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
"$docc" convert "Sources/$target/$target.docc" --additional-symbol-graph-dir "$graphs" \
    --output-path ".build-docs/$target.doccarchive" --warnings-as-errors
