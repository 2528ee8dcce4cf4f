#!/usr/bin/env bash
# Serving a fault allocates nothing and counts no references, in the typed layer and in the engine: 1,000 and 100,000
# faults take as many allocations, and as many references but for the few of the clock, which has longer to go round. With
# workers, the hand-over may count references, but still allocates nothing. In the thread that faults the first fault must
# not allocate either: it is served in a signal handler.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

package=(--package-path Tests/LinkageTest --scratch-path .build-linkage -c release)
swift build "${package[@]}" --quiet
programs=$(swift build "${package[@]}" --show-bin-path)
counter=.build-linkage/counter.so
"${CC:-clang}" -shared -fPIC -O1 -o "$counter" Tests/LinkageTest/counter.c -ldl

count() {
    local program=$1
    shift
    LD_PRELOAD=$PWD/$counter timeout 120 "$programs/$program" "$@" 2>"$counter.txt" >/dev/null
    cat "$counter.txt"
}

# allocated COUNTS: the first of them.
allocated() {
    local words
    read -ra words <<<"$1"
    echo "${words[1]}"
}

# alike FEW MANY: whether the counts of many faults are those of few.
alike() {
    local few many
    read -ra few <<<"$1"
    read -ra many <<<"$2"
    [ "${few[1]}" = "${many[1]}" ] && [ $((many[3] - few[3])) -lt 100 ] && [ $((many[5] - few[5])) -lt 100 ]
}

failures=0
compare() {
    local program=$1 few many
    shift
    few=$(count "$program" 1000 "$@")
    many=$(count "$program" 100000 "$@")
    echo "$program $*: $few, then $many"
    case $* in
    *workers) [ $(($(allocated "$many") - $(allocated "$few"))) -le 4 ] || failures=$((failures + 1)) ;;
    *) alike "$few" "$many" || failures=$((failures + 1)) ;;
    esac
    # Nor does the first fault take memory; a process that has none may end before the clock has counted references.
    case $* in *in-thread*) few=$(count "$program" 0 "$@") ;; *) return 0 ;; esac
    echo "$program $*, none: $few"
    [ "${few%% retains*}" = "${many%% retains*}" ] || failures=$((failures + 1))
}

compare fault-loop
proof=$(count fault-loop 100000 allocate)
[ "$(count fault-loop 100000)" != "$proof" ] || die "the counter does not see allocations: $proof"
for waiting in poll adaptive; do
    for call in copy zeropage continue; do compare pager-faults "$call" "$waiting" inline; done
    compare pager-faults copy "$waiting" workers
done
for call in copy zeropage continue; do compare pager-faults "$call" poll in-thread; done
for call in copy zeropage continue; do compare pager-faults "$call" poll in-thread-ahead; done
[ $failures = 0 ] || die "serving a fault costs allocations or reference counts: $failures"
