# What zsh makes of a line when the key for completion is pressed: zsh -f complete.zsh LINE END
# Fails if END does not appear behind the line.
zmodload zsh/zpty zsh/zselect
local output text= end=$((SECONDS + 60))
await() {
    until [[ $text == *$1* ]]; do
        zpty -r -t shell output && text+=$output || zselect -t 1
        (( SECONDS < end )) || { print -r -- "no $1 in ${(q)text}"; exit 1 }
    done
    text=
}
zpty -b shell zsh -f -i
zpty -w shell 'PS1= RPS1=; unsetopt beep prompt_sp prompt_cr; autoload -Uz compinit; compinit -u -D; print READ''Y'
await READY
zpty -w -n shell "$1"$'\t'
await "$2"
zpty -d shell
