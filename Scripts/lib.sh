# shellcheck shell=bash
# What the scripts share: messages, tools, Python, and the cached kernels. Sourced first.

# shellcheck disable=SC2034 # read by the scripts that source this one
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
USER_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/swift-userfaultfd

# A build that fails inside $(...) ends the script too. Without this, what an earlier build has left would be used.
shopt -s inherit_errexit

# After the host's own programs, those that need_unpacked has put there.
export PATH=$PATH:$USER_CACHE/programs

# The package manager does not see new files of this package from packages that depend on its path, unless it plans again.
for plan in "$REPO"/.build-*/{debug,release}.yaml; do
    [[ ! -e $plan || -z $(find "$REPO/Sources" -type d -newer "$plan" -print -quit) ]] || rm -f "$plan"
done

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

note() { echo "${0##*/}: $*" >&2; }

# usage CODE: prints the comment at the head of the script and exits with this code.
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&$((1 + ($1 != 0)))
    exit "$1"
}

# need COMMAND PACKAGE: makes sure that COMMAND exists; root installs PACKAGE for it.
need() {
    command -v "$1" >/dev/null || install_for "$1" "$2"
}

# need_unpacked COMMAND PACKAGE: the same without installing PACKAGE, because it has a service that would start and stay. The
# program is taken out of the package and put into the cache.
need_unpacked() {
    local work program=$USER_CACHE/programs/$1
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || die "$1 is missing: install it (Debian: $2)"
    note "taking $1 out of the package $2"
    mkdir -p "${program%/*}"
    work=$(mktemp -d "${program%/*}/.work.XXXXXX")
    (
        cd "$work" &&
            { apt-get -q download "$2" || { apt-get -q update && apt-get -q download "$2"; }; } &&
            dpkg-deb -x "$2"_*.deb root &&
            ! ldd "$(find root -type f -path "*bin/$1")" | grep 'not found' &&
            mv "$(find root -type f -path "*bin/$1")" "$program"
    ) >"$program.log" 2>&1 || die "$1 is missing, and cannot be taken out of the package $2: $(tail -n 1 "$program.log")$(rm -rf "$work")"
    rm -rf "$work"
}

# need_library NAME PACKAGE: the same for a library that pkg-config knows by this name.
need_library() {
    need pkg-config pkg-config
    pkg-config --exists "$1" || install_for "$1" "$2"
}

# install_for WHAT PACKAGE
install_for() {
    [[ $(id -u) == 0 ]] || die "$1 is missing: install the package $2"
    note "installing $2 for $1"
    apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 ||
        { apt-get update && apt-get install -y --no-install-recommends "$2"; } >/dev/null 2>&1 ||
        die "$1 is missing, and the package $2 cannot be installed"
}

# python_with PACKAGE...: prints the path of a python that has these packages, in the versions of python-versions.txt, in the only
# environment of this project.
python_with() {
    local environment=$USER_CACHE/python lock
    mkdir -p "$USER_CACHE"
    exec {lock}>"$environment.lock"
    flock "$lock"
    if [[ ! -x $environment/bin/pip ]]; then
        python3 -m venv "$environment" >&2 || die "a Python environment cannot be made: is python3-venv installed?"
    fi
    local name found absent=()
    found=$("$environment/bin/pip" freeze)
    for name; do
        grep -qxF "$(grep "^${name%%[*}==" "$REPO/Scripts/python-versions.txt")" <<<"$found" || absent+=("$name")
    done
    [[ ${#absent[@]} -eq 0 ]] || "$environment/bin/pip" -q install -c "$REPO/Scripts/python-versions.txt" "${absent[@]}" >&2 ||
        die "these Python packages cannot be installed: ${absent[*]}"
    exec {lock}>&-
    echo "$environment/bin/python"
}

# module_maps PRODUCTS SCRATCH: prints the compiler flags for the C modules that a build with this scratch path made.
module_maps() {
    local map
    for map in "$1"/*.build/module.modulemap "$2"/checkouts/*/Sources/*/include/module.modulemap; do
        [[ ! -f $map ]] || printf '%s\n' -Xcc "-fmodule-map-file=$map"
    done
}

# MARK: Kernels

# The series that the library is tested on, oldest first.
ALL_SERIES=(5.10 6.1 6.12 6.16 6.17 6.18 6.19 7.0 7.1 7.2 7.3)
MATRIX=$REPO/Scripts/matrix
ARCH=$(dpkg --print-architecture 2>/dev/null || uname -m)

# choose_machine NAME: what the guests are: "$ARCH", as this host, or arm64-4k or arm64-16k, with pages of that size. Each
# has its own kernels.
choose_machine() {
    case $1 in
        "$ARCH") FLAVOUR=cloud-$ARCH ;;
        arm64-4k) FLAVOUR=cloud-arm64 ;;
        arm64-16k) FLAVOUR=arm64-16k ;;
        *) die "no machine: '$1' (expected $ARCH, arm64-4k or arm64-16k)" ;;
    esac
    MACHINE=$1
    CACHE=${UFFD_KERNEL_CACHE:-$USER_CACHE/kernels}/$MACHINE
}
choose_machine "$ARCH"

is_foreign() { [[ $MACHINE != "$ARCH" ]]; }

is_series() { [[ $1 =~ ^[0-9]+\.[0-9]+$ ]]; }

# check_kernel NAME: a kernel is named by its series (6.12: the newest of it) or by its version (6.12.96, 7.3~rc7).
check_kernel() {
    [[ $1 =~ ^[0-9]+\.[0-9]+(\.[0-9]+|~rc[0-9]+)?$ ]] ||
        die "no kernel: '$1' (expected a series such as 6.12, or a version such as 6.12.96)"
}

series_of() { sed -E 's/^([0-9]+\.[0-9]+).*/\1/' <<<"$1"; }

# kernel_cached NAME: prints the folder of a kernel that is in the cache.
kernel_cached() {
    local folder
    if is_series "$1"; then folder=$CACHE/$1/current; else folder=$(compgen -G "$CACHE/$(series_of "$1")/$1-*" | tail -n1); fi
    [[ -e $folder/vmlinuz ]] && readlink -f "$folder"
}

# kernel_dir NAME: prints the folder of the cached kernel, fetching it first if there is none.
kernel_dir() {
    check_kernel "$1"
    kernel_cached "$1" && return
    "$MATRIX/fetch.sh" --machine "$MACHINE" "$1" >&2 || exit 1
    kernel_cached "$1"
}
