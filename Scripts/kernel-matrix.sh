#!/usr/bin/env bash
# The selftest on the kernels that the library promises to work on:
#   Scripts/kernel-matrix.sh fetch [SERIES...]             newest Debian cloud kernel of each series, into the cache
#   Scripts/kernel-matrix.sh run [OPTIONS] [SERIES...]     boots each, runs the whole selftest as root and as a user,
#                                                          and compares with Tests/KernelMatrix/expected/
#       --accept            records the outcomes as the expected ones (review the difference in git)
#       --selftest FILE     uses this static executable instead of building one
#       --output DIR        where JSON, JUnit and logs go (default: .build-matrix)
#       --limit SECONDS     time limit of one kernel (default: 600)
#   Scripts/kernel-matrix.sh table [--check]               writes docs/kernel-matrix.md and its picture
# No SERIES means every series from 5.10 to 7.3. One kernel takes a minute or two in software emulation.
set -euo pipefail
# shellcheck source=SCRIPTDIR/matrix/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/matrix/lib.sh"
# shellcheck source=SCRIPTDIR/matrix/guest.sh
source "$MATRIX/guest.sh"

EXPECTED=$REPO/Tests/KernelMatrix/expected

usage() {
    sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

report() { python3 -B "$MATRIX/report.py" "$@"; }

# table [--check]: only drawing needs a library, which lives in an environment of its own.
table() {
    if [[ ${1:-} == --check ]]; then
        report table --check "$EXPECTED" "$REPO/docs"
        return
    fi
    local environment=$CACHE/python
    if [[ ! -e $environment/bin/python ]]; then
        mkdir -p "$CACHE"
        { python3 -m venv "$environment" && "$environment/bin/pip" -q install matplotlib; } ||
            { rm -rf "$environment" && die "matplotlib cannot be installed (is python3-venv there?)"; }
    fi
    "$environment/bin/python" -B "$MATRIX/report.py" table "$EXPECTED" "$REPO/docs"
}

# Building is selftest.sh's business; that the selftest lists its cases shows that it runs.
build_selftest() {
    "$REPO/Scripts/selftest.sh" list >/dev/null || die "the selftest does not build"
    SELFTEST=$REPO/.build-static/release/uffd-selftest
}

# start_half WHO TREE WORK KERNEL: boots a guest that runs the selftest as one user.
start_half() {
    local who=$1 work=$3
    cp -al "$2" "$work/tree"
    sed "s/@WHO@/$who/g; s/@LIMIT@/$((limit - limit / 6))/" "$MATRIX/selftest-job" >"$work/tree/job"
    chmod +x "$work/tree/job"
    guest_pack "$work/tree" "$work/initramfs.$who"
    rm -rf "$work/tree"
    guest_start "$4" "$work/initramfs.$who" "$work/$who.console" "$limit" >"$work/$who.tar"
}

# finish_half WHO WORK PID: waits for it and leaves in WORK what it said.
finish_half() {
    local who=$1 work=$2 code=0
    guest_wait "$3" "$work/$who.console" || code=$?
    tar -C "$work" -xf "$work/$who.tar" 2>/dev/null || true
    case $code in
        124) echo "no end after $limit s" ;;
        125) grep -m1 -E 'Kernel panic|BUG:|Oops' "$work/$who.console" || echo "the guest died without a word" ;;
    esac >"$work/$who.death"
}

# run_series SERIES TREE WORK KERNEL: the selftest as root and as a user, in a guest of its own each, at once.
run_series() {
    local work=$3
    mkdir -p "$work"
    cp "$4/release" "$work/release"
    SECONDS=0
    GUESTS=()
    start_half root "$2" "$work" "$4"
    start_half user "$2" "$work" "$4"
    finish_half root "$work" "${GUESTS[-2]}"
    finish_half user "$work" "${GUESTS[-1]}"
    echo "$SECONDS" >"$work/seconds"
    rm -f "$work"/initramfs* "$work"/*.tar
}

run() {
    local accept='' output=$REPO/.build-matrix limit=600 failed=0 series kernel
    SELFTEST=
    while (($#)); do
        case $1 in
            --accept) accept=--accept ;;
            --selftest) SELFTEST=${2:?} && shift ;;
            --output) output=${2:?} && shift ;;
            --limit) limit=${2:?} && shift ;;
            -*) usage 64 >&2 ;;
            *) break ;;
        esac
        shift
    done
    (($#)) || set -- "${ALL_SERIES[@]}"
    for series; do check_series "$series"; done

    scratch=$(mktemp -d)
    trap 'guest_stop; rm -rf "$scratch"' EXIT
    trap 'exit 130' INT TERM
    [[ $SELFTEST ]] || build_selftest
    [[ -x $SELFTEST ]] || die "not an executable file: $SELFTEST"
    guest_tree "$scratch/tree"
    guest_program "$scratch/tree" "$SELFTEST" uffd-selftest

    mkdir -p "$output"
    for series; do
        kernel=$(kernel_dir "$series") || { failed=1 && continue; }
        run_series "$series" "$scratch/tree" "$scratch/$series" "$kernel"
        # shellcheck disable=SC2086 # empty or one word
        report check $accept "$scratch/$series" "$series" "$EXPECTED/$series.json" || failed=1
        rm -rf "${output:?}/$series"
        mv -T "$scratch/$series" "$output/$series"
    done
    exit $failed
}

(($#)) || usage 64 >&2
command=$1
shift
case $command in
    fetch) exec "$MATRIX/fetch.sh" "$@" ;;
    run) run "$@" ;;
    table) table "$@" ;;
    -h | --help) usage 0 ;;
    *) usage 64 >&2 ;;
esac
