#!/usr/bin/env bash
# Measures pages over NBD from nbdkit on this machine, as ratios:
#   Scripts/bench/nbd.sh [--real-time] [--gates] [PAGES [MEASUREMENT...]]
# With --real-time, server and measuring program go before everything else on the machine; needs root.
# With --gates, fails if a ratio is not as promised for certain: the interval in which its median lies is beyond the promise.
# CONFIGURATION=debug saves a build, and decides only what the server's delay decides: no tail, and no overhead.
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
gates=false
while [[ ${1:-} == --* ]]; do
    case $1 in
        --real-time) priority=(chrt -f 50) ;;
        --gates) gates=true ;;
        *) usage 64 ;;
    esac
    shift
done
pages=${1:-56300}
shift $(($# > 0 ? 1 : 0))
measurements=("$@")
[[ $# -gt 0 ]] || measurements=(prefetch demand connections overhead overhead-asking)
Scripts/check/nbd.sh --prepare
package=(--package-path Tests/NBDTests --scratch-path "${SCRATCH:-.build-nbd-bench}" -c "${CONFIGURATION:-release}")
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
    local status=0
    "${priority[@]}" timeout 600 "$program" "$1" "nbd+unix:///?socket=$socket" "$2" || status=$?
    kill "$server"
    wait "$server" || true
    return $status
}

measure_all() {
    local measurement
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
}

# judge: passes lines on, and says behind each ratio whether it is as promised.
judge() {
    awk -v configuration="${CONFIGURATION:-release}" '
        BEGIN {
            least["prefetch-time"] = 3.3; least["connections"] = 5; most["demand-median"] = 1.2
            if (configuration == "release") { most["demand-p99"] = 1.2; most["overhead"] = 1.05 }
        }
        $1 != "RATIO" { print; next }
        $2 in least { verdict = $4 >= least[$2] ? "holds" : $5 < least[$2] ? "BROKEN" : "cannot tell"; bound = ">= " least[$2] }
        $2 in most { verdict = $5 <= most[$2] ? "holds" : $4 > most[$2] ? "BROKEN" : "cannot tell"; bound = "<= " most[$2] }
        !($2 in least) && !($2 in most) { print; next }
        { print $0, bound, verdict; broken += verdict == "BROKEN" }
        END { exit broken > 0 }'
}

if $gates; then measure_all | judge; else measure_all; fi
