#!/usr/bin/env bash
# Tests UserfaultNBD against nbdkit, qemu-nbd, and servers that break the protocol, which the tests start themselves:
#   Scripts/check/nbd.sh [SWIFT-TEST-OPTION...]
#   Scripts/check/nbd.sh --prepare      only fetches what is missing, as root on Debian and Ubuntu
# Fails with the reason as the last line if something cannot be had.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"

need nbdkit nbdkit
need qemu-nbd qemu-utils
need certtool gnutls-bin
need_unpacked nginx nginx
need python3 python3
need_library libnbd libnbd-dev
[[ ${1:-} != --prepare ]] || exit 0

export SWIFT_BACKTRACE=enable=no
timeout -k 10 600 swift test --package-path Tests/NBDTests --scratch-path .build-nbd --disable-xctest --no-parallel "$@"
