#!/usr/bin/env bash
# Rules that no compiler checks: clean scripts, short files, no notes to self, dependencies from GitHub only.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
failed=0

# Without a repository that git trusts, every list of files below would be empty.
git rev-parse --verify --quiet HEAD >/dev/null || die "git does not read this repository: $(git rev-parse HEAD 2>&1 | head -n 1)"

# absent GREP-OPTION...: no file that git knows has it.
absent() {
    local code=0
    git grep -nIE "$@" || code=$?
    [[ $code == 1 ]] || failed=1
}

need shellcheck shellcheck
git ls-files -z .ci/run 'Scripts/*.sh' Scripts/package/debian/*.p* Scripts/matrix/init 'Scripts/matrix/*-job' | xargs -0 shellcheck -x || failed=1
git ls-files -z '*.md' | xargs -0 python3 -B Scripts/check/links.py || failed=1
# Commands of pages run, or the page says why they do not.
git ls-files -z '*.md' | xargs -0 python3 -B Scripts/check/docs-commands.py --marks || failed=1

while read -r lines file; do
    if [ "$file" != total ] && [ "$lines" -gt 400 ]; then
        echo "$file has $lines lines: split it" >&2
        failed=1
    fi
done < <(git ls-files '*.swift' '*.c' '*.h' '*.sh' '*.py' | xargs wc -l)

# The pattern is split, so that this file does not match it.
absent '\b(TO''DO|FIX''ME|XX''X)\b' -- . ':!*.xsd'
for manifest in Package.swift */Package.swift Tests/*/Package.swift; do
    if grep -nE 'url: *"' "$manifest" | grep -v 'url: *"https://github.com/'; then failed=1; fi
done
if git ls-files | grep -E '(^|/)Package\.resolved$|\.build/'; then failed=1; fi
# A page has a name, and not the size that it has on this machine.
absent '\b(4096|4095)\b|(>>|<<) 12\b' -- Sources/UserfaultPager Tests/UserfaultPagerTests Examples
# The same of huge pages and of the width of addresses, in what the selftest does; and neither a size of the kernel's
# accounts in KiB, nor an address that arm64 takes for a tagged one, nor the bits of an open(2) flag are x86's.
absent -e '\b(4096|4095|8192|16384|2097152|511|0x1000|0x200000|0x7FFF[_F0]{4,}|2 << 20)\b|(>>|<<) (47|48)\b' \
    -e '\["(Rss|Pss|Anonymous|Swap|AnonHugePages)"\], [1-9][0-9]*,' -e '(start|source|vec|address)( =|:) 1 << 6[0-3]' -e '\b0o[0-7]{5,}\b' \
    -- Sources/UserfaultSelftest/Cases Sources/UserfaultSelftest/Fixtures Sources/UserfaultSelftest/Stress \
    Sources/UserfaultSelftest/Runner/SelfCheck* Sources/CSelftestSupport
# C is for the typed layer and for tests of the raw interface, and none of it is dead.
python3 -B Scripts/check/imports.py || failed=1
# What comments say of kernel versions was measured.
python3 -B Scripts/check/kernel-versions.py || failed=1
# One version: of the programs, of the changelog's newest section, and of the file VERSION, which scripts read.
version=$(<VERSION)
grep -qF "text = \"$version\"" Sources/UserfaultSelftest/Runner/Version.swift ||
    { echo "Sources/UserfaultSelftest/Runner/Version.swift does not have the version of VERSION, $version" >&2 && failed=1; }
case $(grep -m1 '^## ' CHANGELOG.md) in
    "## Unreleased") [[ $version == *-dev ]] ;;
    "## $version - "*) ;;
    *) false ;;
esac || { echo "CHANGELOG.md does not begin with the section of $version, or with Unreleased if it ends in -dev" >&2 && failed=1; }
# What packages install of the guides speaks of nothing that only the sources have.
for guide in pagers operating; do python3 -B Scripts/package/guide.py "docs/$guide.md" /nowhere >/dev/null || failed=1; done
# The messages that the operator's guide explains are those of the programs.
python3 -B Scripts/check/messages.py docs/operating.md || failed=1
# The text of the page agrees with its tables.
python3 -B Scripts/bench/results.py check docs/performance.md || failed=1
exit $failed
