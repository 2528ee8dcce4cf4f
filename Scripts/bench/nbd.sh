#!/usr/bin/env bash
# Measures pages over NBD from nbdkit on this machine, as ratios: Scripts/bench/nbd.sh [--real-time] [PAGES [MEASUREMENT...]]
# With --real-time, server and measuring program go before everything else on the machine; needs root.
# MEASUREMENT is one of prefetch, demand, connections, overhead, overhead-asking; all of them unless given. They print
#   prefetch-time             time to the last of PAGES recorded pages without prefetch / with it; the server waits 1 ms a read
#   prefetch-time-sequential  the same with all memory, four times as much, loaded in order
#   demand-median, -p99       median and 99th percentile of the waits for other pages while recorded ones are loaded / without
#   connections               time a page with one request at a time / with eight connections; the server waits 10 ms a read
#   overhead                  time a page of the pager / of a C program with libnbd's asynchronous calls; no wait
#   overhead-asking           the same where the kernel does not tell the pager of unmapping, so that it asks for each page
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

priority=()
if [[ ${1:-} == --real-time ]]; then
    priority=(chrt -f 50)
    shift
fi
pages=${1:-56300}
shift $(($# > 0 ? 1 : 0))
measurements=("$@")
[[ $# -gt 0 ]] || measurements=(prefetch demand connections overhead overhead-asking)
Scripts/check/nbd.sh --prepare
package=(--package-path Tests/NBDTests --scratch-path .build-nbd-bench -c release)
swift build "${package[@]}" --product nbd-bench --quiet
program=$(swift build "${package[@]}" --show-bin-path)/nbd-bench

folder=$(mktemp -d)
server=
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT

# measure NAME PAGES [DELAY]: one measurement against a server of its own.
measure() {
    local socket=$folder/$1.socket options=()
    [[ -z ${3:-} ]] || options=(--filter=delay)
    "${priority[@]}" nbdkit -f -U "$socket" -P "$folder/$1.pid" "${options[@]}" pattern $((4 * $2 * 4096)) ${3:+"rdelay=$3"} &
    server=$!
    for _ in $(seq 100); do
        [[ ! -s $folder/$1.pid ]] || break
        sleep 0.1
    done
    "${priority[@]}" timeout 600 "$program" "$1" "nbd+unix:///?socket=$socket" "$2"
    kill "$server"
    wait "$server" || true
}

for measurement in "${measurements[@]}"; do
    case $measurement in
        prefetch | demand) measure "$measurement" "$pages" 1ms ;;
        connections) measure connections $((pages / 4)) 10ms ;;
        overhead | overhead-asking) measure "$measurement" "$pages" ;;
        *)
            echo "no such measurement: $measurement" >&2
            exit 64
            ;;
    esac
done
