# What bash offers for the last word of a line: bash complete.bash PROGRAM WORD...
set -eu
# shellcheck source=/dev/null
source "/usr/share/bash-completion/completions/$1"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
COMPREPLY=()
# complete -o ... -F FUNCTION PROGRAM
read -ra registered < <(complete -p "$1")
set +eu
"${registered[-2]}" "$1" "${*: -1}" "${*: -2:1}"
printf '%s\n' "${COMPREPLY[@]}"
