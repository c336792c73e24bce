#!/usr/bin/env bash
# Trains the quickstart recipe and prints a sample of what it learnt. `make demo` builds first, then runs this.
#   TEXT   the file to train on          STEPS  training steps, if not the recipe's
#   OUT    where the run goes; a number is added when that folder is taken
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly apus=.build/release/apus
readonly recipe=Recipes/quickstart.yaml
readonly default_text=.apus/text/quickstart.txt
text=${TEXT:-$default_text}
out=${OUT:-runs/quickstart}

fail() {
    printf 'demo: %s\n' "$@" >&2
    exit 1
}

[[ -x $apus ]] || fail "$apus is missing: run 'make build'"
if [[ $text == "$default_text" ]]; then Scripts/fetch-text.sh "$text"; fi
[[ -r $text ]] || fail "cannot read the text '$text' (TEXT)"

base=$out
for ((n = 2; ; n++)); do
    [[ -e $out ]] || break
    out=$base-$n
done

options=(--set "data.path=$text" --out "$out")
# A warm-up of a tenth, as the recipe has it, whatever the number of steps.
if [[ -n ${STEPS:-} ]]; then options+=(--steps "$STEPS" --set "training.schedule.warmup_steps=$((STEPS / 10))"); fi

printf '\n$ %s\n' "apus train $recipe ${options[*]}"
"$apus" train "$recipe" "${options[@]}"
[[ -s $out/metrics.jsonl ]] || fail "training left no metrics in $out"

readonly prompt='And the LORD said unto '
printf '\n$ %s\n' "apus generate $out --prompt '$prompt' --max-tokens 300 --temperature 0.8 --top-k 40 --seed 1"
"$apus" generate "$out" --prompt "$prompt" --max-tokens 300 --temperature 0.8 --top-k 40 --seed 1

printf '\nThe run is in %s:\n' "$out"
(cd "$out" && printf '  %s\n' *)
cat <<TEXT
Next:  $apus inspect $out
       $apus generate $out --prompt 'In the beginning ' --stream
       $apus eval $out --data $text
TEXT
