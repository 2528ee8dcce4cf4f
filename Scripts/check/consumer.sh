#!/usr/bin/env bash
# A package that depends on this one by its address builds, and resolves what its traits need and nothing else.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

work=$PWD/.build-consumer
repository=$work/swift-userfaultfd
rm -rf "$work"
mkdir -p "$repository"
# A repository with the files of the working tree, and a version.
git ls-files --cached --others --exclude-standard -z -- Package.swift Sources Tests Snippets |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null -cf - -T - | tar -xf - -C "$repository"
git -C "$repository" init --quiet
git -C "$repository" add .
git -C "$repository" -c user.name=test -c user.email=test@localhost commit --quiet --message test
git -C "$repository" tag 0.0.1

export USERFAULTFD_URL=file://$repository
package=(--package-path Tests/ConsumerTest --scratch-path "$work/build" --security-path "$work/security" --quiet)
resolved=Tests/ConsumerTest/Package.resolved
failed=0

# resolves TRAITS PACKAGES: what a consumer that enables these traits resolves.
resolves() {
    local found
    export USERFAULTFD_TRAITS=$1
    rm -rf "$resolved" "$work/build"
    swift package "${package[@]}" resolve
    found=$(sed -n 's/.*"identity" : "\(.*\)".*/\1/p' $resolved | sort | xargs)
    echo "with the traits '$1' a consumer resolves: $found"
    [ "$found" = "$2" ] || { echo "expected: $2" >&2 && failed=1; }
}

resolves Metrics "swift-argument-parser swift-metrics swift-system swift-userfaultfd"
resolves "" "swift-argument-parser swift-system swift-userfaultfd"
swift build "${package[@]}"
timeout 60 "$work/build/debug/consumer"
exit $failed
