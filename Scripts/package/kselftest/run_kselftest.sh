#!/bin/sh
# Runs the tests of an installed kselftest directory, all of them unless -c or -t chooses.
#   -c, --collection COLLECTION   run this collection; can be repeated
#   -t, --test COLLECTION:TEST    run this test; can be repeated
#   -S, --skip COLLECTION:TEST    leave this test out; can be repeated
#   -l, --list                    list the tests, and run none
#   -d, --dry-run                 report the tests as skipped, and run none
#   -s, --summary                 write what the tests print to output.log only
#   -f, --no-error-on-fail        exit with 0 even if tests fail
#   -o, --override-timeout N      time limit of each test in seconds, in place of the collection's
#   -h, --help                    this text
# Prints TAP version 13. Exit codes: 0, or 1 if a test failed, or 64 for wrong usage.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
cd "$here" || exit 1

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$here/run_kselftest.sh"; }

wrong() {
    echo "run_kselftest.sh: $1" >&2
    exit 64
}

chosen='' skipped='' dry='' log='' lenient='' override=''
while [ $# -gt 0 ]; do
    case $1 in
        -c | --collection | -t | --test | -S | --skip | -o | --override-timeout)
            [ -n "${2-}" ] || wrong "$1 needs a value" ;;
    esac
    case $1 in
        -c | --collection)
            grep -q "^$2:" kselftest-list.txt || wrong "no such collection: $2"
            chosen="$chosen $(grep "^$2:" kselftest-list.txt)"
            shift ;;
        -t | --test)
            grep -qxF "$2" kselftest-list.txt || wrong "no such test: $2"
            chosen="$chosen $2"
            shift ;;
        -S | --skip)
            skipped="$skipped $2 "
            shift ;;
        -o | --override-timeout)
            override=$2
            shift ;;
        -l | --list) cat kselftest-list.txt && exit 0 ;;
        -d | --dry-run) dry=1 ;;
        -s | --summary) log=$here/output.log && : >"$log" ;;
        -f | --no-error-on-fail) lenient=1 ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 64 ;;
    esac
    shift
done

tests=''
for test in ${chosen:-$(cat kselftest-list.txt)}; do
    case $skipped in *" $test "*) ;; *) tests="$tests $test" ;; esac
done

# run COLLECTION TEST: runs it with its time limit, its output as comments; the exit code is the test's.
run() {
    limit=$(sed -n 's/^timeout=//p' "$1/settings" 2>/dev/null)
    limit=${override:-${limit:-45}}
    echo "# timeout set to $limit"
    echo "# selftests: $1: $2"
    codes=$(mktemp) || return 1
    (
        cd "$1" || exit 1
        # 0: the collection has no limit.
        if [ "$limit" = 0 ]; then "./$2"; else timeout "$limit" "./$2"; fi 2>&1
        echo $? >"$codes"
    ) | if [ -n "$log" ]; then cat >>"$log"; else sed 's/^/# /'; fi
    code=$(cat "$codes")
    rm -f "$codes"
    return "$code"
}

# shellcheck disable=SC2086 # names without blanks
set -- $tests
echo "TAP version 13"
echo "1..$#"
number=0 failed=0
for test in "$@"; do
    number=$((number + 1))
    name="$number selftests: ${test%%:*}: ${test#*:}"
    if [ -n "$dry" ]; then
        echo "ok $name # SKIP"
        continue
    fi
    run "${test%%:*}" "${test#*:}"
    code=$?
    case $code in
        0) echo "ok $name" ;;
        4) echo "ok $name # SKIP" ;;
        124) failed=1 && echo "not ok $name # TIMEOUT $limit seconds" ;;
        *) failed=1 && echo "not ok $name # exit=$code" ;;
    esac
done
[ "$failed" = 0 ] || [ -n "$lenient" ]
