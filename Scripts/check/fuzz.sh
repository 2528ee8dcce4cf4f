#!/usr/bin/env bash
# Let libFuzzer look for what breaks: Scripts/check/fuzz.sh [SECONDS | --runs N] [NAME...]. Each target gets a fifth of the
# seconds, 60 by default, or so many executions. The targets are:
#   KernelBytes     arbitrary bytes for what parses the kernel's data
#   ScanArguments   arbitrary arguments of PAGEMAP_SCAN, on the kernel
#   Handoffs        arbitrary bytes for what reads the messages of clients
#   CRIUImages      arbitrary bytes in CRIU's images, on its socket and from its page server
#   PagerSteps      arbitrary orders of what a program, a kernel and a pager do
# What was found to crash is left in .build-fuzz/.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

export SWIFT_BACKTRACE=enable=no
out=.build-fuzz
if [ "${1:-}" = --runs ]; then
    runs=${2:?how many executions}
    shift 2
    limits=("-runs=$runs")
    deadline=$((600 + runs / 100))
else
    seconds=$((${1:-60} / 5 + 1))
    shift || true
    limits=("-max_total_time=$seconds")
    deadline=$((seconds + 60))
fi
names=("$@")
swift build --scratch-path "$out/build" --target UserfaultHandoff --quiet \
    -Xcc -fsanitize=address -Xswiftc -sanitize=fuzzer -Xswiftc -enable-testing -Xswiftc -parse-as-library
bin=$(swift build --scratch-path "$out/build" --show-bin-path)
flags=(-swift-version 6 -parse-as-library -sanitize=fuzzer -sanitize=address -strict-memory-safety -I "$bin/Modules")
mapfile -t -O ${#flags[@]} flags < <(module_maps "$bin" "$out/build")
# An object whose source is gone defines what stands elsewhere now.
for object in "$bin"/Userfault*.build/*.swift.o; do
    [ -n "$(find Sources -name "$(basename "$object" .o)" -print -quit)" ] || rm "$object"
done
mapfile -t objects < <(find "$bin/UserfaultHandoff.build" "$bin/UserfaultPager.build" "$bin/UserfaultFD.build" "$bin/CUserfaultFD.build" \
    "$bin/SystemPackage.build" "$bin/CSystem.build" -name '*.o')

fuzz() {
    local name=$1
    shift
    [ ${#names[@]} = 0 ] || [[ " ${names[*]} " == *" $name "* ]] || return 0
    mkdir -p "$out/corpus/$name"
    swiftc "${flags[@]}" "Tests/Fuzz/$name.swift" "$@" "${objects[@]}" -o "$out/$name" \
        2> >(grep -v "warning: Cannot export local symbol" >&2)
    echo "$name:"
    timeout -k 10 "$deadline" "$out/$name" "${limits[@]}" -rss_limit_mb=2048 -max_len=2048 \
        -artifact_prefix="$out/$name-" -print_final_stats=1 "$out/corpus/$name" >"$out/$name.log" 2>&1 || {
        tail -n 60 "$out/$name.log"
        return 1
    }
    tail -n 6 "$out/$name.log"
}

fuzz KernelBytes
fuzz ScanArguments
fuzz Handoffs
fuzz CRIUImages
fuzz PagerSteps Tests/UserfaultPagerTests/Model/{RandomRun,Model,ModelHandler,ModelKernel,ModelSide}.swift
