#!/usr/bin/env bash
# Compiles all Swift code of README.md, docs, the DocC pages and the documentation comments; docs-code.py says how. Also that of
# every step of the tutorials.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

out=.build-docs/code
rm -rf "$out"
mkdir -p "$out"/{manifests,parts,programs}
mapfile -t pages < <(git ls-files -co --exclude-standard '*.md' 'Sources/*.swift')
[[ ${#pages[@]} -gt 0 ]] || die "git finds no page"
failed=0
python3 -B Scripts/check/docs-code.py "$out" "${pages[@]}" || failed=1

# The tests of the adapters need every module that a page may use.
package=(--package-path Tests/AdapterTests --scratch-path .build-adapters)
swift build "${package[@]}" --build-tests --quiet
bin=$(swift build "${package[@]}" --show-bin-path)
mapfile -t flags < <(module_maps "$bin" .build-adapters)
flags+=(-swift-version 6 -c -o /dev/null -I "$bin/Modules")

echo "$(find $out/parts -name '*.swift' | wc -l) parts of programs"
swiftc "${flags[@]}" -parse-as-library -module-name Parts -wmo Tests/Documents/Prelude.swift "$out"/parts/*.swift || failed=1
nbd_flags=()
if grep -qs 'import UserfaultNBD' "$out"/programs/*.swift; then
    if reason=$(Scripts/check/nbd.sh --prepare 2>&1); then
        package=(--package-path Tests/NBDTests --scratch-path .build-nbd)
        swift build "${package[@]}" --build-tests --quiet
        bin=$(swift build "${package[@]}" --show-bin-path)
        mapfile -t nbd_flags < <(module_maps "$bin" .build-nbd)
        nbd_flags+=(-swift-version 6 -c -o /dev/null -I "$bin/Modules" -Xcc -fmodule-map-file=Sources/CNBD/module.modulemap)
    else
        echo "programs that use UserfaultNBD are not compiled: $reason"
    fi
fi
for program in "$out"/programs/*.swift; do
    use=("${flags[@]}")
    if grep -q 'import UserfaultNBD' "$program"; then
        [ ${#nbd_flags[@]} -gt 0 ] || continue
        use=("${nbd_flags[@]}")
    fi
    echo "$program"
    cp "$program" "$out/main.swift"
    swiftc "${use[@]}" -warnings-as-errors "$out/main.swift" || failed=1
done
for manifest in "$out"/manifests/*; do
    echo "$manifest"
    swift package --package-path "$manifest" --scratch-path "$out/scratch" dump-package >/dev/null || failed=1
done

cp -r docs/swift-userfaultfd.docc "$out/tutorials"
python3 -B Scripts/package/steps.py --whole "$out/tutorials" || failed=1
echo "$(find $out/tutorials -name '*.swift' | wc -l) steps of tutorials"
for step in "$out"/tutorials/Resources/*.swift; do
    cp "$step" "$out/main.swift"
    # A step may declare what only the next one uses.
    swiftc "${flags[@]}" -suppress-warnings -typecheck "$out/main.swift" || { echo "${step##*/}" >&2 && failed=1; }
done
exit $failed
