#!/usr/bin/env bash
# Runs the whole selftest many times beside busy loops, and checks that every run comes to the same outcomes:
# Scripts/check/selftest-soak.sh [OPTIONS] [-- OPTIONS OF uffd-selftest run]
#   --runs N            how often (default: 50)
#   --loops N           busy loops beside it (default: 4)
#   --selftest FILE     uses this executable instead of building the static one
#   --output DIR        where the reports go (default: .build-soak)
# Fails if a result fails that is no known bug of this kernel, if its outcome differs between runs, or if a run has no
# verdict. The reports of all runs are kept. Works as root, and as a user, who has more results skipped. Other runs of the
# selftest wait for those of the soak test. Fifty runs take about an hour on a machine with nothing else to do.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

runs=50 loops=4 selftest='' output=$REPO/.build-soak
while (($#)); do
    case $1 in
        --runs) runs=${2:?} && shift ;;
        --loops) loops=${2:?} && shift ;;
        --selftest) selftest=${2:?} && shift ;;
        --output) output=${2:?} && shift ;;
        --) shift && break ;;
        -h | --help) usage 0 ;;
        *) usage 64 ;;
    esac
    shift
done
[[ $runs =~ ^[1-9][0-9]*$ && $loops =~ ^[0-9]+$ ]] || usage 64
if [[ ! $selftest ]]; then
    "$REPO/Scripts/selftest.sh" list >/dev/null || die "the selftest does not build"
    selftest=$REPO/.build-static/release/uffd-selftest
fi
[[ -x $selftest ]] || die "not an executable file: $selftest"
mkdir -p "$output"
rm -f "$output"/run-*.{json,log,exit,seconds}

# The loops end with this shell, however it ends. An interrupted suite undoes its changes of the host.
children=()
trap 'kill "${children[@]}" 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT TERM HUP
for ((loop = 0; loop < loops; loop++)); do
    setpriv --pdeathsig KILL bash -c 'while :; do :; done' &
    children+=($!)
done

for ((run = 1; run <= runs; run++)); do
    name=$output/run-$(printf %03d "$run")
    code=0
    # A run waits for another's lock on the host's settings, but not for as long as that may take on a busy machine.
    flock /proc/sys/vm true
    start=$(date +%s.%N)
    # In the background, so that a signal does not wait for the end of the run.
    "$selftest" run --known-failures "$REPO/Tests/KernelMatrix/known-bugs.json" \
        --format json --output "$name.json" "$@" </dev/null >"$name.log" 2>&1 &
    children[loops]=$!
    wait $! || code=$?
    unset "children[loops]"
    date +%s.%N | awk -v start="$start" '{ print $1 - start }' >"$name.seconds"
    echo $code >"$name.exit"
    python3 -B "$REPO/Scripts/check/soak.py" run "$name"
done
python3 -B "$REPO/Scripts/check/soak.py" compare "$output"
