#!/usr/bin/env bash
# Everything of ranks on GPUs that CI cannot see: operations between GPUs, right and as fast as PyTorch's, failures that
# end all ranks, a layout held against one rank, and a short training on one rank and on several. Builds nothing. Ends
# with 1 when anything failed.
#   Scripts/check-nccl.sh [PARTS]    PARTS: of operations failures speed layout training, all by default
#   APUS     the command              TEXT   what is trained on              OUT     a folder for whole outputs
#   RANKS    GPUs (2)                 MPIRUN the launcher (mpirun)           PYTHON  one with torch (python3)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly apus=${APUS:-.build/release/apus}
readonly text=${TEXT:-.apus/text/quickstart.txt}
readonly logs=${OUT:-runs/check-nccl}
readonly ranks=${RANKS:-2}
readonly python=${PYTHON:-python3}
readonly parts=${*:-operations failures speed layout training}
read -ra mpirun <<<"${MPIRUN:-mpirun}"
readonly recipe=Recipes/quickstart.yaml
# Seconds that a command may take, whatever hangs.
readonly most=240
failed=()

[[ -x $apus ]] || { echo "check-nccl: $apus is missing: run 'make build', or name another with APUS" >&2 && exit 1; }
[[ -r $text ]] || { echo "check-nccl: cannot read the text '$text' (TEXT)" >&2 && exit 1; }
command -v "${mpirun[0]}" >/dev/null || { echo "check-nccl: no ${mpirun[0]} on PATH (MPIRUN)" >&2 && exit 1; }
mkdir -p "$logs" || exit 1
# In a container the user may be root.
((EUID)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# Runs a command, its output in a log; prints its time and whether it passed.
check() { # name, command...
    local name=$1 begin=$EPOCHREALTIME verdict=passed
    shift
    "$@" >"$logs/$name.log" 2>&1 || { verdict=FAILED && failed+=("$name"); }
    printf '%-34s %7s s  %s\n' "$name" "$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')" \
        "$verdict"
    [[ $verdict == passed ]] || tail -n 5 "$logs/$name.log"
}

ranked() { timeout "$most" "${mpirun[@]}" -n "$ranks" --bind-to none "$@"; }

operations() {
    check operations-one-gpu timeout "$most" "$apus" doctor --collectives --device cuda --skip-speed
    check operations ranked "$apus" doctor --collectives --device cuda
    check operations-through-host env NCCL_P2P_DISABLE=1 timeout "$most" "${mpirun[@]}" -n "$ranks" --bind-to none \
        "$apus" doctor --collectives --device cuda --skip-speed
    tail -n 1 "$logs/operations.log"
}

# All ranks end, with a status that is not 0 and the word in what they say.
ends() { # rehearsal, word
    local output status
    output=$(ranked "$apus" doctor --collectives --device cuda --rehearse "$1" --timeout 15 2>&1)
    status=$?
    echo "$output"
    ((status != 0 && status != 124)) && grep -q "$2" <<<"$output"
}

failures() {
    check failures-kill ends kill@1 'lost: rank 1'
    check failures-skip ends skip@1 'time-out'
    check failures-mismatch ends mismatch@1 'time-out\|mismatch'
    check failures-fail ends fail@1 'a failure on purpose'
}

speed() {
    "$python" -c 'import torch' 2>/dev/null || {
        echo "speed                              skipped: $python has no torch (PYTHON)"
        return
    }
    check speed timeout 560 "$python" Benchmarks/peers/gpu/alternate_collectives.py --apus "$apus" \
        --mpirun "${mpirun[*]} --bind-to none" --ranks "$ranks" --out "$logs/speed.json"
    cat "$logs/speed.log"
}

layout() {
    local data=(--set "data.path=$text" --device cuda)
    check layout-data ranked "$apus" verify layout "$recipe" "${data[@]}" --data "$ranks"
    check layout-expert ranked "$apus" verify layout "$recipe" "${data[@]}" --data "$ranks" --expert "$ranks" --zero 2
    check layout-tensor ranked "$apus" verify layout "$recipe" "${data[@]}" --tensor "$ranks" --data 1
    tail -n 3 "$logs"/layout-*.log
}

# The losses of two runs of the same steps, to a thousandth.
same_losses() { # run, run
    paste <(losses "$1") <(losses "$2") | awk '
        function off(a, b) { return a > b ? (a - b) / b : (b - a) / b }
        { count++; if (NF != 2 || off($1, $2) > 1e-3) { print "step " count ": " $0; bad++ } }
        END { print count + 0 " steps compared"; exit bad > 0 || count == 0 }'
}

losses() { sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl"; }

training() {
    local one=$logs/one many=$logs/many
    rm -rf "$one" "$many"
    local options=(--set "data.path=$text" --set output.log_every=1 --steps 30 --device cuda)
    check training-one timeout "$most" "$apus" train "$recipe" "${options[@]}" --out "$one"
    check training-ranks ranked "$apus" train "$recipe" "${options[@]}" --out "$many" --set "layout.expert=$ranks" \
        --set layout.zero=1
    check training-same-losses same_losses "$one" "$many"
    tail -n 1 "$logs/training-same-losses.log"
}

for part in $parts; do
    case $part in
        operations | failures | speed | layout | training) "$part" ;;
        *) echo "check-nccl: '$part' is no part: operations, failures, speed, layout or training" >&2 && exit 1 ;;
    esac
done
if ((${#failed[@]})); then
    printf '\n%s of the checks FAILED: %s; outputs are in %s\n' "${#failed[@]}" "${failed[*]}" "$logs"
    exit 1
fi
printf '\nall checks passed\n'
