#!/usr/bin/env bash
# Installs uffd-selftest below a directory: uffd-selftest.sh DIRECTORY
#   usr/bin/uffd-selftest, its manual page, completions for bash, zsh and fish, the schema of its reports, the list of bugs
#   that kernels are known for, the script that prepares a host, a seccomp profile, the guide for operators, and licences.
# UFFD_SELFTEST names the program; by default Scripts/selftest.sh builds it.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/tree.sh
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

case ${1-} in
    -h | --help) usage 0 ;;
    '' | -*) usage 64 ;;
esac
root=$(realpath -m "$1")
program=${UFFD_SELFTEST:-$(static_selftest)}
put_program "$program" uffd-selftest
cd "$REPO"
put 644 docs/uffd-selftest.1 usr/share/man/man1/uffd-selftest.1
put 644 docs/selftest-report.schema.json usr/share/uffd-selftest/report.schema.json
put 644 Tests/KernelMatrix/known-bugs.json usr/share/uffd-selftest/known-bugs.json
put 755 Scripts/package/setup-host.sh usr/share/uffd-selftest/setup-host.sh
put 644 Scripts/package/seccomp.json usr/share/uffd-selftest/seccomp.json
put_guide operating.md usr/share/doc/uffd-selftest ../Scripts/package/seccomp.json=../../uffd-selftest/seccomp.json
licences . .build-static libc.a libstdc++.a libgcc.a >"$root/usr/share/doc/uffd-selftest/licences.txt"
