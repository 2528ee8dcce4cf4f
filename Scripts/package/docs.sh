#!/usr/bin/env bash
# Builds the documentation of all libraries, with its tutorials, as one site in .build-docs/site; a warning is an error:
#   Scripts/package/docs.sh [--base-path PATH]
# A web server can serve this folder as it is; PATH is where, if it is not at the top of its host, for example /userfaultfd.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

base=/
case ${1:-} in
    "") ;;
    --base-path) base=${2:?PATH is missing} ;;
    *) usage 64 ;;
esac

libraries=(UserfaultFD UserfaultPager UserfaultHandoff UserfaultNBD UserfaultPagerMetrics UserfaultPagerService)
out=.build-docs
site=$out/site
front=$out/swift-userfaultfd.docc
tools=$(dirname "$(readlink -f "$(command -v swift)")")
target=$(swift -print-target-info | sed -n 's/.*"unversionedTriple": "\(.*\)".*/\1/p')
rm -rf "$out/symbols" "$out/links" "$out/archives" "$site" "$front"
mkdir -p "$out/links" "$out/archives"

# build PACKAGE SCRATCH: builds the tests of a package, which enable every trait that they need; sets `flags` for its modules.
build() {
    local package=(--package-path "$1" --scratch-path "$2") bin
    swift build "${package[@]}" --build-tests --quiet
    bin=$(swift build "${package[@]}" --show-bin-path)
    mapfile -t flags < <(module_maps "$bin" "$2")
    flags+=(-I "$bin/Modules" -Xcc -fmodule-map-file=Sources/CNBD/module.modulemap)
}

# convert NAME CATALOGUE [OPTION...]
convert() {
    "$tools/docc" convert "$2" "${@:3}" --enable-experimental-external-link-support \
        --fallback-default-module-kind Library --hosting-base-path "$base" --output-path "$out/$1.doccarchive"
}

# Pages of all archives link to each other. So the first archive of each only tells which pages there are.
collect() { convert "links/$1" "$2" "${@:3}" --no-transform-for-static-hosting --diagnostic-level error; }

# finish NAME CATALOGUE [OPTION...]
finish() {
    local links=() other
    for other in "$out"/links/*; do
        [[ $other == "$out/links/$1.doccarchive" ]] || links+=(--dependency "$other")
    done
    convert "archives/$1" "$2" "${@:3}" "${links[@]}" --warnings-as-errors
}

Scripts/check/nbd.sh --prepare
build Tests/NBDTests .build-nbd
flags_nbd=("${flags[@]}")
build Tests/AdapterTests .build-adapters
for library in "${libraries[@]}"; do
    use=("${flags[@]}")
    [ "$library" != UserfaultNBD ] || use=("${flags_nbd[@]}")
    mkdir -p "$out/symbols/$library"
    "$tools/swift-symbolgraph-extract" -module-name "$library" "${use[@]}" -minimum-access-level public \
        -target "$target" -output-dir "$out/symbols/$library"
done
cp -r docs/swift-userfaultfd.docc "$front"
for picture in fault clones; do
    cp "docs/images/$picture-light.svg" "$front/Resources/$picture.svg"
    # The list of tutorials is dark, whatever the reader chose.
    cp "docs/images/$picture-dark.svg" "$front/Resources/$picture-on-dark.svg"
    cp "docs/images/$picture-dark.svg" "$front/Resources/$picture~dark.svg"
done
python3 -B Scripts/package/steps.py "$front"

for step in collect finish; do
    for library in "${libraries[@]}"; do
        "$step" "$library" "Sources/$library/$library.docc" --additional-symbol-graph-dir "$out/symbols/$library"
    done
    "$step" swift-userfaultfd "$front"
done

# The front page comes last: the sidebar shows what is below the first entry of a name, and its links have nothing below them.
archives=("${libraries[@]/#/$out/archives/}" "$out/archives/swift-userfaultfd")
"$tools/docc" merge "${archives[@]/%/.doccarchive}" --output-path "$site" --synthesized-landing-page-name swift-userfaultfd
cp docs/swift-userfaultfd.docc/{index.html,theme-settings.json} "$site/"
note "the site is in $site: python3 -m http.server --directory $site"
