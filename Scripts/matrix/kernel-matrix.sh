#!/usr/bin/env bash
# Runs the selftest on the kernels that the library promises to work on. In Scripts/matrix:
#   kernel-matrix.sh fetch [--machine NAME] [SERIES...]
#                                                downloads the newest Debian cloud kernel of each series
#   kernel-matrix.sh run [OPTIONS] [SERIES...]   boots each; runs the whole selftest, as root and as a user, and the
#                                                library's unit tests; compares with the expected outcomes
#       --accept            records the outcomes as the expected ones (review the difference in git)
#       --selftest FILE     uses this static executable instead of building one
#       --unit-tests FILE   uses this test bundle instead of building one
#       --output DIR        where JSON, JUnit and logs go (default: .build-matrix)
#       --limit SECONDS     time limit of one guest (default: 900; 1800 on arm64)
#       --only GLOB         runs only these results of the selftest, and no unit tests; what is expected of all others
#                           stays as it is; can be repeated
#       --part NAME         runs only this part: root, user or unit; the others keep what is expected of them; can be
#                           repeated. A busy host runs one guest better than three at once.
#       --one-thread        the processors of each guest take turns on one thread of the host
#       --machine NAME      arm64-4k or arm64-16k: guests for arm64 with pages of 4 or 16 KiB, which qemu emulates. The
#                           static selftest is cross-compiled; there are no unit tests.
#   kernel-matrix.sh before-after [--accept] [--selftest FILE] [WORD...]
#                                                for each bug that kernels had: boots a kernel before its fix, where
#                                                results must fail, and one after it, where they must pass; with words,
#                                                only for the fixes whose entry in Tests/KernelMatrix/regressions.json has
#                                                them all; --accept records what was seen
#   kernel-matrix.sh table [--check]             writes docs/kernel-matrix.md, docs/kernel-matrix-arm64.md and
#                                                docs/kernel-regressions.md
# Without SERIES: all eleven series from 5.10 to 7.3. One kernel takes a minute or two in software emulation, and about
# seven minutes for each part on arm64.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=SCRIPTDIR/guest.sh
source "$MATRIX/guest.sh"

PARTS=(root user unit)
EXPECTED=$REPO/Tests/KernelMatrix/expected
REGRESSIONS=("$REPO/Tests/KernelMatrix/regressions.json" "$REPO/Tests/KernelMatrix/before-after.json")

report() { python3 -B "$MATRIX/report.py" "$@"; }
before_after() { python3 -B "$MATRIX/before_after.py" "$@"; }

# selftest.sh builds it. If the selftest lists its cases, it runs.
build_selftest() {
    if is_foreign; then
        SELFTEST=$REPO/.build-arm64/uffd-selftest
        "$REPO/Scripts/package/cross-arm64.sh" "$SELFTEST"
        return
    fi
    "$REPO/Scripts/selftest.sh" list >/dev/null || die "the selftest does not build"
    SELFTEST=$REPO/.build-static/release/uffd-selftest
}

# The unit tests need shared libraries, which are copied into the guest too.
build_unit_tests() {
    note "building the unit tests"
    swift build --package-path "$REPO" --build-tests >"$1" 2>&1 ||
        { tail -n 40 "$1" >&2; die "the unit tests do not build"; }
    UNIT_TESTS=$(swift build --package-path "$REPO" --show-bin-path)/swift-userfaultfdPackageTests.xctest
}

# start_part PART TREE WORK KERNEL: boots a guest that runs one part: the selftest as root or user, or the unit tests.
start_part() {
    local part=$1 work=$3 job=selftest
    [[ $part != unit ]] || job=unit
    cp -al "$2" "$work/tree"
    guest_modules "$work/tree" "$4"
    if [[ $part == unit ]]; then
        rm "$work/tree/bin/uffd-selftest"
        guest_program "$work/tree" "$UNIT_TESTS" unit-tests
    fi
    sed "s/@WHO@/$part/g; s/@LIMIT@/$((limit - limit / 4))/; s|@FILTERS@|$filters|" "$MATRIX/$job-job" >"$work/tree/job"
    chmod +x "$work/tree/job"
    guest_pack "$work/tree" "$work/initramfs.$part"
    rm -rf "$work/tree"
    boot_part "$part" "$work" "$4"
}

# boot_part PART WORK KERNEL
boot_part() {
    # Of three guests at once, only one has two processors: more would be too slow on a host with two cores.
    GUEST_CPUS=1
    if [[ $1 == root ]] || is_foreign; then GUEST_CPUS=2; fi
    guest_start "$3" "$2/initramfs.$1" "$2/$1.console" "$limit" >"$2/$1.tar"
}

# finish_part PART WORK KERNEL PID: waits for the guest and keeps its output in WORK.
finish_part() {
    local part=$1 work=$2 pid=$4 code=0 again
    guest_wait "$pid" "$work/$part.console" || code=$?
    for again in 1 2; do
        if ((code != 125)) || guest_came_up "$work/$part.console"; then break; fi
        note "the guest for $part did not come up: boot $((again + 1))"
        code=0
        boot_part "$part" "$work" "$3"
        guest_wait "${GUESTS[-1]}" "$work/$part.console" || code=$?
    done
    tar -C "$work" -xf "$work/$part.tar" 2>/dev/null || true
    case $code in
        124) echo "not finished after $limit s" ;;
        125) grep -m1 -E 'Kernel panic|BUG:|Oops' "$work/$part.console" || echo "the guest died without a message" ;;
    esac >"$work/$part.death"
}

# again PART NAME TREE WORK KERNEL: runs what has failed once more, alone. A host that is too slow for three guests at once
# fails a result once, a kernel fails it every time.
again() {
    local part=$1 filters
    filters=$(report failures "$4" "$2" "$part" "$EXPECTED/$2.json")
    [[ $filters ]] || return 0
    note "once more for $part:$filters"
    mkdir -p "$4/again"
    start_part "$part" "$3" "$4/again" "$5"
    finish_part "$part" "$4/again" "$5" "${GUESTS[-1]}"
    rm -f "$4"/again/initramfs* "$4"/again/*.tar
}

# run_series NAME TREE WORK KERNEL: all parts, each in a guest of its own; at once, if the host is of the same architecture.
# The name is that of the results: the series, after the machine if it is another one than the host.
run_series() {
    local work=$3 part
    mkdir -p "$work"
    cp "$4/release" "$work/release"
    SECONDS=0
    GUESTS=()
    if is_foreign; then
        for part in "${PARTS[@]}"; do
            start_part "$part" "$2" "$work" "$4"
            finish_part "$part" "$work" "$4" "${GUESTS[-1]}"
        done
    else
        for part in "${PARTS[@]}"; do start_part "$part" "$2" "$work" "$4"; done
        local pids=("${GUESTS[@]: -${#PARTS[@]}}")
        for part in "${!PARTS[@]}"; do finish_part "${PARTS[part]}" "$work" "$4" "${pids[part]}"; done
    fi
    for part in "${PARTS[@]}"; do again "$part" "$1" "$2" "$work" "$4"; done
    echo "$SECONDS" >"$work/seconds"
    echo "${PARTS[@]}" >"$work/parts"
    [[ -z $filters ]] || touch "$work/filtered"
    rm -f "$work"/initramfs* "$work"/*.tar
}

run() {
    local accept='' output=$REPO/.build-matrix limit='' failed=0 filters='' series name kernel parts=()
    SELFTEST='' UNIT_TESTS=''
    while (($#)); do
        case $1 in
            --accept) accept=--accept ;;
            --selftest) SELFTEST=${2:?} && shift ;;
            --unit-tests) UNIT_TESTS=${2:?} && shift ;;
            --output) output=${2:?} && shift ;;
            --limit) limit=${2:?} && shift ;;
            --one-thread) GUEST_ONE_THREAD=1 ;;
            --machine) choose_machine "${2:?}" && shift ;;
            --part)
                [[ " ${PARTS[*]} " == *" ${2:?} "* ]] || usage 64
                parts+=("$2") && shift
                ;;
            --only) filters+=" --filter ${2:?}" && shift ;;
            -*) usage 64 ;;
            *) break ;;
        esac
        shift
    done
    if [[ $filters ]] || is_foreign; then PARTS=(root user); fi
    [[ ! ${parts[*]} ]] || PARTS=("${parts[@]}")
    [[ -z $filters || " ${PARTS[*]} " != *" unit "* ]] || die "--only filters the selftest, not the unit tests"
    if is_foreign; then
        [[ " ${PARTS[*]} " != *" unit "* ]] || die "the unit tests run on $ARCH only"
        limit=${limit:-1800}
    fi
    limit=${limit:-900}
    (($#)) || set -- "${ALL_SERIES[@]}"
    for series; do is_series "$series" || die "not a series: $series"; done

    scratch=$(mktemp -d)
    trap 'guest_stop; rm -rf "$scratch"' EXIT
    trap 'exit 130' INT TERM
    [[ $SELFTEST ]] || build_selftest
    [[ -x $SELFTEST ]] || die "not an executable file: $SELFTEST"
    if [[ " ${PARTS[*]} " == *" unit "* ]]; then
        [[ $UNIT_TESTS ]] || build_unit_tests "$scratch/build.log"
        [[ -x $UNIT_TESTS ]] || die "not an executable file: $UNIT_TESTS"
    fi
    guest_tree "$scratch/tree"
    guest_program "$scratch/tree" "$SELFTEST" uffd-selftest

    mkdir -p "$output"
    for series; do
        kernel=$(kernel_dir "$series") || { failed=1 && continue; }
        name=$series
        if is_foreign; then name=$MACHINE/$series; fi
        run_series "$name" "$scratch/tree" "$scratch/$name" "$kernel"
        # shellcheck disable=SC2086 # empty or one word
        report check $accept "$scratch/$name" "$name" "$EXPECTED/$name.json" || failed=1
        rm -rf "${output:?}/$name"
        mkdir -p "$(dirname "$output/$name")"
        mv -T "$scratch/$name" "$output/$name"
    done
    exit $failed
}

# run_before_after [--accept] [--selftest FILE] [WORD...]
run_before_after() {
    local accept=''
    SELFTEST=''
    while (($#)); do
        case $1 in
            --accept) accept=--accept ;;
            --selftest) SELFTEST=${2:?} && shift ;;
            -*) usage 64 ;;
            *) break ;;
        esac
        shift
    done
    [[ $SELFTEST ]] || build_selftest
    # shellcheck disable=SC2086 # empty or one word
    before_after run $accept "$SELFTEST" "${REGRESSIONS[@]}" "$@"
}

# table [--check]
table() {
    report table "$@" "$EXPECTED" "$REPO/docs" && before_after table "$@" "${REGRESSIONS[@]}" "$REPO/docs"
}

(($#)) || usage 64
command=$1
shift
case $command in
    fetch) exec "$MATRIX/fetch.sh" "$@" ;;
    run) run "$@" ;;
    before-after) run_before_after "$@" ;;
    table) table "$@" ;;
    -h | --help) usage 0 ;;
    *) usage 64 ;;
esac
