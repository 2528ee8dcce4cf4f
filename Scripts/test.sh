#!/usr/bin/env bash
# Tests everything: Scripts/test.sh [STEP]...; by default all steps, the quick ones first:
#   format sources build unit nbd consumer canary linkage allocations snippets examples docs site fuzz commands clients
#   selftest reports hosts matrix bench
# More steps run only if they are named: packages arm64.
# The commands of the documents run in a clone of their own, beside the steps from nbd to fuzz.
# Prints what each step does, and ends with a line "N passed, N failed, N skipped". Logs are in .build-test.
# As root it reserves huge pages while it runs, and installs on Debian and Ubuntu what is missing.
set -uo pipefail
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO" || exit

export SWIFT_BACKTRACE=enable=no
logs=.build-test
mkdir -p "$logs"
passed=0 failed=0 skipped=0
broken=()

count() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }

# check NAME COMMAND...: runs a command, shows the end of its output, and keeps the rest as a log.
check() {
    local name=$1 start=$SECONDS
    shift
    printf '== %s\n' "$name"
    if "$@" >"$logs/$name.log" 2>&1 9>&-; then
        tail -n 4 "$logs/$name.log" | sed 's/^/   /'
        printf '   passed in %d s\n' $((SECONDS - start))
        return 0
    fi
    tail -n 40 "$logs/$name.log" | sed 's/^/   /'
    broken+=("$name")
    printf '   FAILED after %d s: %s\n' $((SECONDS - start)) "$logs/$name.log"
    return 1
}

# beside NAME COMMAND...: begins a command that neither disturbs the steps that follow nor is disturbed by them.
declare -A begun=()
beside() {
    local name=$1
    shift
    "$@" >"$logs/$name.beside.log" 2>&1 9>&- &
    begun[$name]=$!
}

# finish NAME: waits for such a command, and prints what it has printed.
finish() {
    local status=0
    wait "${begun[$1]}" || status=$?
    unset "begun[$1]"
    cat "$logs/$1.beside.log"
    return $status
}

one() { if check "$@"; then count 1 0 0; else count 0 1 0; fi; }

skip() {
    printf '== %s\n   skipped: %s\n' "$1" "$2"
    count 0 0 1
}

install_tools() {
    local missing=()
    command -v clang >/dev/null || missing+=(clang)
    command -v readelf >/dev/null || missing+=(binutils)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    command -v git >/dev/null || missing+=(git ca-certificates)
    command -v xmllint >/dev/null || missing+=(libxml2-utils)
    command -v shellcheck >/dev/null || missing+=(shellcheck)
    command -v prove >/dev/null || missing+=(perl)
    { command -v pkg-config && pkg-config --exists liblz4; } >/dev/null || missing+=(pkg-config liblz4-dev)
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86 busybox-static cpio zstd)
    (need_unpacked promtool prometheus) || [ "$(id -u)" != 0 ] || return 1
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "please install: ${missing[*]}"
        return 0
    fi
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

pool=/proc/sys/vm/nr_hugepages

# Several runs may be at work, which share this lock. Who has it alone, the first run and the last one, keeps how many huge
# pages there were, and restores that. What the steps start does not have the lock: check closes it.
pages_before=/run/swift-userfaultfd-huge-pages

reserve_huge_pages() {
    exec 9>>"$pages_before.lock"
    if flock --exclusive --nonblock 9; then cat $pool >$pages_before; fi
    flock --shared 9
    [ "$(cat $pool)" -ge 8 ] || echo 8 >$pool
    restores_pages=true
}

restores_pages=false
# An interrupt does not reach what runs beside the steps.
end() {
    kill ${begun[@]+"${begun[@]}"} 2>/dev/null
    if $restores_pages && flock --exclusive --nonblock 9; then cat $pages_before >$pool; fi
}
trap end EXIT

step_format() { one format swift format lint --strict --recursive Sources Tests Snippets Examples Benchmarks Tools Package.swift; }

step_sources() {
    one sources Scripts/check/sources.sh
    one workflows Scripts/check/workflows.sh
    one matrix-reports Scripts/check/matrix-reports.sh
}

step_build() { one build swift build --build-tests; }

# unit NAME [SWIFT-TEST-OPTIONS...]: the unit tests of one package, each counted.
unit() {
    local name=$1 results=$logs/$1.xml allowed=() numbers
    shift
    rm -f "$logs/$name"*.xml
    [ "$(id -u)" = 0 ] || allowed+=(--allow "needs root" --allow "needs 1 free" --allow "needs 2 free" --allow "needs KVM")
    # The guest's code is for x86-64.
    { [ "$(uname -m)" = x86_64 ] && : </dev/kvm; } 2>/dev/null || allowed+=(--allow "needs KVM")
    # Line by line: who stops the run wants to see where it stood.
    check "$name" timeout -k 10 900 stdbuf -oL swift test --disable-xctest --no-parallel --xunit-output "$results" "$@"
    local status=$?
    if [ $status != 0 ]; then
        python3 Scripts/check/tests-summary.py unended "$logs/$name.log" | tee -a "$logs/$name.log" | sed 's/^/   /'
    fi
    [ -f "$logs/$name-swift-testing.xml" ] && results=$logs/$name-swift-testing.xml
    if numbers=$(python3 Scripts/check/tests-summary.py xunit "$results" ${allowed[@]+"${allowed[@]}"}); then
        read -ra numbers <<<"$numbers"
        count "${numbers[@]}"
        printf '   %s passed, %s failed or skipped without good reason, %s skipped\n' "${numbers[@]}"
        # A test that crashed the run has no result of its own.
        [ $status = 0 ] || [ "${numbers[1]}" != 0 ] || count 0 1 0
    else
        count 0 1 0
    fi
}

step_unit() {
    unit unit
    # What a thread does that a fork waits for must take no memory: without the caches of malloc's threads it stops for certain.
    GLIBC_TUNABLES=glibc.malloc.tcache_count=0 \
        unit unit-forks --filter 'UserfaultPagerTests.(Child|Event|LeftBehind|Pause|Runtime|Stopping|Storm)Tests'
    unit unit-adapters --package-path Tests/AdapterTests --scratch-path .build-adapters
    unit unit-benchmarks --package-path Benchmarks --scratch-path .build-bench
}

# Pages over NBD: only where libnbd and the servers can be had.
step_nbd() {
    local reason
    if ! reason=$(Scripts/check/nbd.sh --prepare 2>&1); then
        skip nbd "${reason##*$'\n'}"
        return
    fi
    unit unit-nbd --package-path Tests/NBDTests --scratch-path .build-nbd
    # The server's delay decides these, which need no optimized build and no idle machine. Tails and the overhead do.
    one nbd-ratios env CONFIGURATION=debug SCRATCH=.build-nbd timeout -k 10 600 \
        Scripts/bench/nbd.sh --gates 4000 prefetch connections demand
}

step_consumer() { one consumer Scripts/check/consumer.sh; }
step_canary() { one canary Scripts/check/canary.sh; }
step_linkage() { one linkage Scripts/check/linkage.sh; }
step_allocations() { one allocations Scripts/check/allocations.sh; }

step_snippets() { one snippets timeout -k 10 600 Scripts/check/snippets.sh; }

step_examples() { one examples timeout -k 10 300 Scripts/check/examples.sh; }

step_docs() { one docs-code Scripts/check/docs-code.sh; }

# The documentation as a site, with all of its pages in a browser.
step_site() {
    local reason
    if ! reason=$(Scripts/check/nbd.sh --prepare 2>&1); then
        skip site "${reason##*$'\n'}"
        return
    fi
    one site-build Scripts/package/docs.sh
    one site-pages timeout -k 10 1200 Scripts/check/site.sh
}

step_fuzz() { one fuzz Scripts/check/fuzz.sh 10; }

step_selftest() {
    local numbers
    check selftest timeout -k 10 1200 Scripts/selftest.sh run --known-failures Tests/KernelMatrix/known-bugs.json \
        --format json --output "$logs/selftest.json"
    local status=$?
    if numbers=$(python3 Scripts/check/tests-summary.py selftest "$logs/selftest.json"); then
        read -ra numbers <<<"$numbers"
        count "${numbers[@]}"
        printf '   %s passed, %s failed, %s skipped\n' "${numbers[@]}"
        [ $status = 0 ] || [ "${numbers[1]}" != 0 ] || count 0 1 0
    else
        count 0 1 0
    fi
}

# The selftest's reports, read by parsers of other projects.
step_reports() {
    local python
    python=$(python_with kcidb-io tap.py jsonschema) || { count 0 1 0 && return; }
    one reports timeout -k 10 300 "$python" -B Scripts/check/selftest-reports.py \
        "$(swift build --show-bin-path)/uffd-selftest"
}

# many NAME COMMAND...: a script of many checks, whose last line has their sums.
many() {
    local numbers
    check "$@"
    numbers=$(sed -nE '$s/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$logs/$1.log")
    read -ra numbers <<<"${numbers:-0 1 0}"
    count "${numbers[@]}"
    printf '   %s passed, %s failed, %s skipped\n' "${numbers[@]}"
}

# The selftest on hosts that lack something.
step_hosts() {
    many hosts timeout -k 10 3600 Scripts/check/selftest-hosts.py
    if [ "$(id -u)" = 0 ]; then
        one setup-host timeout -k 10 180 Scripts/check/setup-host.sh
    else
        skip setup-host "a mount namespace needs root"
    fi
}

# The program uffd-pager with simulated and real clients.
step_clients() {
    many clients timeout -k 10 1800 Scripts/check/clients.py --jobs 2
    many criu timeout -k 10 1800 Scripts/check/criu.sh
}

step_matrix() {
    if ! command -v qemu-system-x86_64 >/dev/null; then
        skip matrix "no qemu-system-x86_64"
        return
    fi
    one matrix timeout -k 10 2700 Scripts/matrix/kernel-matrix.sh run --output "$logs/matrix" 5.10 6.1 6.12 7.3
}

step_bench() { one bench timeout -k 10 600 Scripts/bench/run.sh --smoke; }

# Only by its name: it makes fresh systems of two Debian releases.
step_packages() { many packages timeout -k 10 1800 Scripts/check/packages.sh; }

# Only by its name: a cross-compiler of 2.7 GB, and guests that are emulated on any host that is not arm64.
step_arm64() {
    local machine
    for machine in arm64-4k arm64-16k; do
        one "$machine" timeout -k 10 7200 Scripts/matrix/kernel-matrix.sh run --machine "$machine" \
            --output "$logs/matrix" 6.12
    done
}

step_commands-begin() { beside commands timeout -k 10 3000 Scripts/check/docs-commands.sh; }

step_commands() {
    [ -n "${begun[commands]:-}" ] || step_commands-begin
    one commands finish commands
}

steps=(format sources build unit commands-begin nbd consumer canary linkage allocations snippets examples docs site fuzz commands
    clients selftest reports hosts matrix bench)
[ $# = 0 ] || steps=("$@")
for step in "${steps[@]}"; do
    declare -F "step_$step" >/dev/null || usage 64
done

check tools install_tools || exit 1
[ "$(id -u)" != 0 ] || [ ! -w $pool ] || reserve_huge_pages
for step in "${steps[@]}"; do "step_$step"; done
# What failed once more, where it is not buried under what passed.
for name in ${broken[@]+"${broken[@]}"}; do
    printf '\nfailed: %s\n' "$name"
    grep -iE 'fail|error|wrong|did not end|not as expected|->' "$logs/$name.log" | grep -vE ' 0 failed|^[[:space:]]*(✔|◇)' | tail -n 12 | cut -c-300
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
