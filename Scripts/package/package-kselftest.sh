#!/usr/bin/env bash
# Packs uffd-selftest as an installed kselftest: package-kselftest.sh [FILE.tar.gz], by default kselftest-userfaultfd.tar.gz
# The directory kselftest in it has run_kselftest.sh with the options and the output of the kernel's, kselftest-list.txt,
# and the collection userfaultfd. The collection can also be copied into the kselftest directory of a kernel, and its
# lines added to kselftest-list.txt there.
# UFFD_SELFTEST names the program; by default Scripts/selftest.sh builds it.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

case ${1-} in
    -h | --help) usage 0 ;;
    -*) usage 64 ;;
esac
package=$(realpath -m "${1-kselftest-userfaultfd.tar.gz}")
program=${UFFD_SELFTEST:-$(static_selftest)}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tests=$root/kselftest/userfaultfd
mkdir -p "$tests"
install -m 755 "$REPO/Scripts/package/kselftest/run_kselftest.sh" "$root/kselftest/run_kselftest.sh"
install -m 755 "$program" "$tests/uffd-selftest"
install -m 755 "$REPO/Scripts/package/run_vmtests-compatible.sh" "$tests/run_vmtests.sh"
echo "timeout=900" >"$tests/settings"
"$program" --version >"$root/kselftest/VERSION"

# add NAME ARGUMENT...: a test, which runs the program with these arguments.
add() {
    local name=$1
    shift
    # shellcheck disable=SC2016 # expanded by the test
    printf '#!/bin/sh\nexec "$(dirname "$0")/uffd-selftest" %s\n' "$*" >"$tests/$name"
    chmod 755 "$tests/$name"
    echo "userfaultfd:$name" >>"$root/kselftest/kselftest-list.txt"
}
add uffd-unit-tests run --format ktap
add uffd-stress-anon stress anon 20 16
add uffd-stress-shmem stress shmem 20 16
add uffd-stress-shmem-private stress shmem-private 20 16
add uffd-stress-hugetlb stress hugetlb 128 32
add uffd-stress-hugetlb-private stress hugetlb-private 128 32

tar -czf "$package" -C "$root" ${SOURCE_DATE_EPOCH:+--mtime="@$SOURCE_DATE_EPOCH"} --owner=0 --group=0 --sort=name kselftest
note "wrote $package"
