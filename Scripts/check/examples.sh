#!/usr/bin/env bash
# The examples compile and run: Scripts/check/examples.sh [NAME]...
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO"
export SWIFT_BACKTRACE=enable=no

# build PACKAGE: prints where its programs are. The packages share what they are built from.
build() {
    local package=(--package-path "$1" --scratch-path .build-examples)
    swift build "${package[@]}" --quiet >&2
    swift build "${package[@]}" --show-bin-path
}

# Restores an object of 4 MiB that an HTTP server has on a socket. In a shell of its own, whose end ends the server.
restore_from_http() {
    folder=$(mktemp -d)
    server=
    trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
    head -c 4M /dev/urandom >"$folder/image.raw"
    # One process, which ends when it is killed, and which needs no folder of an installed nginx.
    cat >"$folder/nginx.conf" <<EOF
daemon off; master_process off; pid $folder/pid; error_log stderr; events {}
http {
    access_log off;
    client_body_temp_path $folder; proxy_temp_path $folder; fastcgi_temp_path $folder; uwsgi_temp_path $folder;
    scgi_temp_path $folder; server { listen unix:$folder/http; root $folder; }
}
EOF
    nginx -c "$folder/nginx.conf" -p "$folder" 2>"$folder/nginx.log" &
    server=$!
    for _ in $(seq 100); do
        [[ ! -s $folder/pid ]] || break
        sleep 0.1
    done
    timeout 60 nbdkit -U - curl url=http://localhost/image.raw unix-socket-path="$folder/http" \
        --run "'$programs/http-image' \"\$uri\" >'$folder/copy.raw'" >&2 || die "http-image fails: $(cat "$folder/nginx.log")"
    cmp "$folder/image.raw" "$folder/copy.raw" >&2 || die "http-image restores other bytes than the object has"
}

programs=$(build Examples)
if [ $# = 0 ]; then
    set -- Examples/Sources/*
    if pkg-config --exists liblz4; then
        build Examples/CompressedFile >/dev/null
        set -- "$@" compressed-file
    else
        echo "compressed-file is not built: it needs liblz4-dev"
    fi
    if reason=$(Scripts/check/nbd.sh --prepare 2>&1); then
        build Examples/HTTPImage >/dev/null
        set -- "$@" http-image
    else
        echo "http-image is not built: ${reason##*$'\n'}"
    fi
fi
for example; do
    example=${example##*/}
    echo "== $example"
    case $example in
        http-image) output=$(restore_from_http) ;; # which tells about itself on the standard error
        *) output=$(timeout 60 "$programs/$example") ;;
    esac
    echo "$output"
    # What a tutorial shows, whatever the numbers are.
    shown=docs/swift-userfaultfd.docc/Resources/$example.txt
    if [[ -e $shown && $output != "skipped: "* ]]; then
        diff <(sed '1d' "$shown" | tr -s 0-9 N) <(tr -s 0-9 N <<<"$output") >&2 || die "$example does not print what $shown shows"
    fi
done
