# shellcheck shell=bash
# What the scripts that pack programs share. Sourced after lib.sh.

# static_selftest: builds uffd-selftest as one static executable, and prints its path.
static_selftest() {
    "$REPO/Scripts/selftest.sh" --version >&2
    echo "$REPO/.build-static/release/uffd-selftest"
}

# licences PACKAGE SCRATCH [ARCHIVE...]: prints the licences of what a program of this package is linked with. The package manager
# has its sources in SCRATCH; ARCHIVE is a static library of the system, whose package Debian and Ubuntu can tell.
licences() {
    local archive file owner owners=()
    [[ -d $REPO/$2/checkouts ]] || swift package --package-path "$REPO/$1" --scratch-path "$REPO/$2" resolve >&2
    if command -v dpkg-query >/dev/null; then
        for archive in "${@:3}"; do
            file=$(realpath "$("${CC:-gcc}" -print-file-name="$archive")")
            owner=$(dpkg-query --search "$file")
            owners+=("${owner%%:*}")
        done
    fi
    python3 -B "$REPO/Scripts/package/licences.py" "$REPO/$2/checkouts" "${owners[@]}"
}

# MARK: Installing below the directory $root

# put MODE FILE PATH
# shellcheck disable=SC2154 # the scripts that source this one set it
put() { install -D -m "$1" "$2" "$root/$3"; }

# put_guide NAME FOLDER [LINK=TARGET]...: a page of docs, as guide.py prints it; all that it links to is there.
put_guide() {
    mkdir -p "$root/$2"
    python3 -B Scripts/package/guide.py "docs/$1" "$root/$2" "${@:3}" >"$root/$2/.guide"
    mv "$root/$2/.guide" "$root/$2/$1"
    chmod 644 "$root/$2/$1"
    python3 -B Scripts/check/links.py "$root/$2/$1"
}

# put_program FILE NAME: the program itself and its completions.
put_program() {
    local shells path
    shells=$(mktemp -d)
    put 755 "$1" "usr/bin/$2"
    while read -r shell path; do
        # A shell reads it and does not execute it: it needs no interpreter's name.
        "$1" --generate-completion-script "$shell" | sed '1{/^#!/d}' >"$shells/$shell"
        put 644 "$shells/$shell" "usr/share/$path"
    done <<END
bash bash-completion/completions/$2
zsh zsh/vendor-completions/_$2
fish fish/vendor_completions.d/$2.fish
END
    rm -r "$shells"
}
