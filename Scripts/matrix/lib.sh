# shellcheck shell=bash
# What every script of the kernel matrix shares: names, messages, the cache folder and the tools.

# The series that the library is tested on, oldest first.
# shellcheck disable=SC2034 # read by the scripts that source this one
ALL_SERIES=(5.10 6.1 6.12 6.16 6.17 6.18 6.19 7.0 7.1 7.2 7.3)

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
MATRIX=$REPO/Scripts/matrix
ARCH=$(dpkg --print-architecture)
CACHE=${UFFD_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swift-userfaultfd/kernels}/$ARCH

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

note() { echo "${0##*/}: $*" >&2; }

check_series() {
    [[ $1 =~ ^[0-9]+\.[0-9]+$ ]] || die "not a kernel series: '$1' (expected a name such as 6.12)"
}

# need COMMAND PACKAGE: makes sure that COMMAND is there, installing PACKAGE where we may.
need() {
    command -v "$1" >/dev/null && return
    [[ $(id -u) == 0 ]] || die "$1 is missing: install the package $2"
    note "installing $2 for $1"
    apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 ||
        { apt-get update && apt-get install -y --no-install-recommends "$2"; } >/dev/null 2>&1 ||
        die "$1 is missing, and the package $2 cannot be installed"
}

# kernel_dir SERIES: prints the folder of the cached kernel, fetching it first if there is none.
kernel_dir() {
    check_series "$1"
    [[ -e $CACHE/$1/current/vmlinuz ]] || "$MATRIX/fetch.sh" "$1" >&2 || exit 1
    readlink -f "$CACHE/$1/current"
}
