#!/usr/bin/env bash
# Replaces run_vmtests.sh of the kernel's mm selftests in a kselftest harness, for the category userfaultfd:
#   run_vmtests-compatible.sh [-t userfaultfd] [-n] [-h]
# The same seven tests under the same names, as TAP version 13, with kselftest's exit codes: 0 pass, 1 fail, 4 skip.
# UFFD_SELFTEST names the program; the default is uffd-selftest beside this script, or what Scripts/selftest.sh builds.
set -uo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }

tap=1
while getopts "t:nhad" option; do
    case $option in
        t)  # There are no tests of other categories here. A harness may ask for several, so this is not an error.
            [[ " $OPTARG " == *" userfaultfd "* ]] || { echo "TAP version 13"; echo "1..0 # SKIP no such category"; exit 4; } ;;
        n) tap=0 ;;
        a | d) ;; # Upstream's switches for other categories.
        h) usage && exit 0 ;;
        *) usage >&2 && exit 1 ;;
    esac
done

if [[ -z ${UFFD_SELFTEST-} ]]; then
    UFFD_SELFTEST=$here/uffd-selftest
    [[ -x $UFFD_SELFTEST ]] || UFFD_SELFTEST=$here/../selftest.sh
fi

number=0 passed=0 failed=0 skipped=0
say() { ((tap)) && echo "$1"; }

# run NAME ARGUMENT...: one outer test; its output becomes comments of the outer report.
run() {
    local name=$1 code verdict
    shift
    number=$((number + 1))
    say "# running $name"
    if ((tap)); then
        "$UFFD_SELFTEST" "$@" 2>&1 | sed -u 's/^/# /'
    else
        "$UFFD_SELFTEST" "$@"
    fi
    code=${PIPESTATUS[0]}
    case $code in
        0) passed=$((passed + 1)) verdict="ok $number $name" ;;
        4) skipped=$((skipped + 1)) verdict="ok $number $name # SKIP" ;;
        *) failed=$((failed + 1)) verdict="not ok $number $name # exit=$code" ;;
    esac
    say "$verdict"
}

say "TAP version 13"
run "uffd-unit-tests" run --format tap
run "uffd-stress anon 20 16" stress anon 20 16
run "uffd-stress hugetlb 128 32" stress hugetlb 128 32
run "uffd-stress hugetlb-private 128 32" stress hugetlb-private 128 32
run "uffd-stress shmem 20 16" stress shmem 20 16
run "uffd-stress shmem-private 20 16" stress shmem-private 20 16
run "uffd-wp-mremap" run --format tap --filter 'wp-mremap*'

echo "# SUMMARY: PASS=$passed SKIP=$skipped FAIL=$failed"
say "1..$number"
((failed == 0)) || exit 1
((skipped == 0)) || exit 4
