#!/usr/bin/env bash
# The libraries import neither Foundation nor Dispatch, and a program that uses the typed layer and the engine links neither.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

libraries=(Sources/CUserfaultFD Sources/UserfaultFD Sources/UserfaultPager Sources/UserfaultHandoff
    Sources/UserfaultNBD Sources/UserfaultPagerMetrics Sources/UserfaultPagerService)
if grep -rnE '^\s*((public|internal|package|private) )?(@_?[a-zA-Z]+ )*import (Foundation|FoundationEssentials|Dispatch|Glibc)\b' \
    "${libraries[@]}"; then
    die "the libraries import a module that they must not import"
fi

package=(--package-path Tests/LinkageTest --scratch-path .build-linkage -c release)
swift build "${package[@]}" --quiet
programs=$(swift build "${package[@]}" --show-bin-path)
for program in fault-loop pager-loop; do
    needed=$(readelf -d "$programs/$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' | sort)
    echo "$program needs: $(tr '\n' ' ' <<<"$needed")"
    if grep -iE 'foundation|dispatch' <<<"$needed" || ldd "$programs/$program" | grep -i foundation; then
        die "the program links Foundation or Dispatch"
    fi
done
