#!/usr/bin/env bash
# Builds the documentation of a library into .build-docs/LIBRARY.doccarchive; a warning is an error:
#   Scripts/package/docs.sh [LIBRARY]      UserfaultFD by default
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

target=${1:-UserfaultFD}
graphs=.build-docs/symbols-$target
rm -rf "$graphs"
mkdir -p "$graphs"
# The tests of the adapters enable their traits, so that their build has every library but UserfaultNBD, which needs
# libnbd.
scratch=.build-adapters
package=(--package-path Tests/AdapterTests --scratch-path "$scratch")
if [ "$target" = UserfaultNBD ]; then
    Scripts/check/nbd.sh --prepare
    scratch=.build-nbd
    package=(--package-path Tests/NBDTests --scratch-path "$scratch")
fi
swift build "${package[@]}" --build-tests --quiet
bin=$(swift build "${package[@]}" --show-bin-path)
mapfile -t flags < <(module_maps "$bin" "$scratch")
flags+=(-Xcc -fmodule-map-file=Sources/CNBD/module.modulemap)
tools=$(dirname "$(readlink -f "$(command -v swift)")")
"$tools/swift-symbolgraph-extract" -module-name "$target" -I "$bin/Modules" "${flags[@]}" -minimum-access-level public \
    -target "$(swift -print-target-info | sed -n 's/.*"unversionedTriple": "\(.*\)".*/\1/p')" -output-dir "$graphs"
"$tools/docc" convert "Sources/$target/$target.docc" --additional-symbol-graph-dir "$graphs" \
    --output-path ".build-docs/$target.doccarchive" --warnings-as-errors
