#!/usr/bin/env bash
# Installs uffd-pager below a directory: uffd-pager.sh DIRECTORY
#   usr/bin/uffd-pager, its manual pages, completions for bash, zsh and fish, systemd units, and an example configuration.
# UFFD_PAGER names the program; by default it is built.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

case ${1-} in
    -h | --help) usage 0 ;;
    '' | -*) usage 64 ;;
esac
root=$(realpath -m "$1")
program=${UFFD_PAGER-}
cd "$REPO"
if [[ -z $program ]]; then
    package=(--package-path Tools --scratch-path .build-tools -c release)
    swift build "${package[@]}" --product uffd-pager >&2
    program=$(swift build "${package[@]}" --show-bin-path)/uffd-pager
fi

put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$program" usr/bin/uffd-pager
completions=$(mktemp -d)
trap 'rm -rf "$completions"' EXIT
for shell in bash zsh fish; do
    "$program" --generate-completion-script "$shell" >"$completions/$shell"
done
put 644 "$completions/bash" usr/share/bash-completion/completions/uffd-pager
put 644 "$completions/zsh" usr/share/zsh/vendor-completions/_uffd-pager
put 644 "$completions/fish" usr/share/fish/vendor_completions.d/uffd-pager.fish
for unit in Scripts/package/systemd/*; do put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"; done
put 644 Scripts/package/uffd-pager.json usr/share/doc/uffd-pager/uffd-pager.json
"$program" --experimental-dump-help | python3 -B Scripts/package/manual.py "$root/usr/share/man/man1"
