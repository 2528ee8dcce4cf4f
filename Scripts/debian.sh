# shellcheck shell=bash
# Packages of any of Debian's suites, from the mirror of the host's apt, without a change to the host's sources and lists.
# Sourced after lib.sh.

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# apt_world FOLDER: keeps lists and packages in this folder from now on; for apt-get and apt-cache with "${APT_OPTIONS[@]}".
apt_world() {
    APT=$1
    APT_OPTIONS=(
        -o "Dir::State=$APT" -o "Dir::Cache=$APT/cache" -o "Dir::Etc::sourcelist=$APT/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root
    )
}

# empty_world FOLDER [ARCHITECTURE...]: the same for a machine on which nothing is installed, so that apt brings every
# library. Its own architecture is the first; without any, that of the host.
empty_world() {
    apt_world "$1"
    mkdir -p "$APT"
    : >"$APT/status"
    APT_OPTIONS+=(-o "Dir::State::status=$APT/status")
    shift
    [[ $# == 0 ]] || APT_OPTIONS+=(-o "APT::Architecture=$1" "${@/#/-oAPT::Architectures::=}")
}

# download FOLDER PACKAGE...: puts the files of these packages into the folder, without those that they depend on.
download() { (cd "$1" && run_apt download "${@:2}"); }

# download_all FOLDER PACKAGE...: the same with all packages that they depend on and that are not installed.
download_all() { run_apt -o "Dir::Cache::archives=$1" install -y -d --no-install-recommends "${@:2}"; }

run_apt() { LC_ALL=C timeout 1800 apt-get "${APT_OPTIONS[@]}" "$@" >"$APT/download.log" 2>&1; }

# download_problem: prints why the last download failed.
download_problem() { grep -m1 '^E:' "$APT/download.log" || tail -n1 "$APT/download.log"; }

# mirror LABEL: prints the address that the host's apt uses for the archive with this label.
mirror() {
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Label: $1" | sed -n 1p
}

# write_sources SUITE...
write_sources() {
    local main security suite signed=
    main=$(mirror Debian)
    security=$(mirror Debian-Security)
    [[ $main ]] || die "apt has no Debian mirror (no Debian sources, or 'apt-get update' never ran)"
    [[ -e $KEYRING ]] && signed="[signed-by=$KEYRING]"
    for suite; do
        echo "deb $signed $main $suite main"
        [[ $suite == sid || $suite == experimental ]] && continue
        echo "deb $signed $main $suite-updates main"
        echo "deb $signed $main $suite-backports main"
        [[ -z $security ]] || echo "deb $signed $security $suite-security main"
    done
}

# update_lists SUITE...: reads their package lists; a suite that the mirror does not have is only reported.
update_lists() {
    mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial"
    write_sources "$@" >"$APT/sources.list"
    local log=$APT/update.log
    LC_ALL=C timeout 600 apt-get "${APT_OPTIONS[@]}" update >"$log" 2>&1 || true
    sed -nE "s/^E: The repository '[^ ]* ([^ ]+) Release' .*/\1: no such suite on the mirror/p" "$log" |
        while read -r line; do note "$line"; done
    # Some suites may fail; without any list, nothing can be found.
    compgen -G "$APT/lists/*_Packages*" >/dev/null ||
        die "no package list could be read: $(grep -m1 -E '^(E|W|Err)' "$log" || echo "see $log")"
    grep -qE '^(Hit|Get):' "$log" || note "no package list could be read, and older ones are used: see $log"
}
