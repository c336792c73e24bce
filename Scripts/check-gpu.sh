#!/usr/bin/env bash
# Everything that needs a GPU and CI cannot see: the kernels' start, every op, the same training on processor and GPU, a
# steady step without waits, and NVIDIA's sanitizers. Builds nothing. Ends with 1 when anything failed.
#   Scripts/check-gpu.sh [PARTS]    PARTS: of start doctor portable training sanitizer, all by default; the sanitizer is
#                                   memcheck synccheck initcheck racecheck, which may be named instead
#   APUS     the command              TEXT   what is trained on              LOGS   a folder for whole outputs
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly apus=${APUS:-.build/release/apus}
readonly text=${TEXT:-.apus/text/quickstart.txt}
readonly logs=${LOGS:-runs/check-gpu}
readonly parts=${*:-start doctor portable training sanitizer}
# Seconds until the first result: compiling every kernel, and reading them from disk.
readonly most_cold=20 most_warm=2
failures=()

[[ -x $apus ]] || { echo "check-gpu: $apus is missing: run 'make build', or name another with APUS" >&2 && exit 1; }
[[ -r $text ]] || { echo "check-gpu: cannot read the text '$text' (TEXT)" >&2 && exit 1; }
mkdir -p "$logs" || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Runs a command, its output in a log; prints its time and whether it passed, and keeps the time in `seconds`.
check() { # name, command...
    local name=$1 begin=$EPOCHREALTIME verdict=passed
    shift
    "$@" >"$logs/$name.log" 2>&1 || { verdict=FAILED && failures+=("$name"); }
    seconds=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    printf '%-34s %7s s  %s\n' "$name" "$seconds" "$verdict"
}

limit() { # name, most seconds: fails the last check where it took longer
    awk -v a="$seconds" -v b="$2" 'BEGIN { exit !(a <= b) }' && return
    printf '%-34s %7s s allowed  FAILED\n' "$1" "$2"
    failures+=("$1")
}

smallest() { "$apus" doctor --device cuda --skip-speed --only 'add bias'; }

start() {
    export XDG_CACHE_HOME=$scratch/one
    check start-cold smallest
    limit start-cold "$most_cold"
    check start-warm smallest
    limit start-warm "$most_warm"
    export XDG_CACHE_HOME=$scratch/two
    # Two processes that find no kernels on disk, and both have to end well.
    both() {
        smallest &
        local other=$!
        smallest || { wait "$other"; return 1; }
        wait "$other"
    }
    check start-two-at-once both
    unset XDG_CACHE_HOME
}

training() {
    check training-like-the-processor "$apus" verify device Recipes/quickstart.yaml --set data.path="$text"
    tail -n 2 "$logs/training-like-the-processor.log"
    check training-steady-step steady_step
}

# The host waits once, for the last of the steps.
steady_step() {
    "$apus" bench train --device cuda --steps 20 --json | tee "$scratch/steps"
    grep -Eq '"host_waits_per_step": ?0?\.05[,}]' "$scratch/steps" || {
        echo 'the host waited for the device in a steady step' && return 1
    }
}

# The sanitizers but memcheck follow our own kernels alone: what the libraries' write by the copy engine looks unwritten to
# initcheck, and what they order by its barriers unordered to racecheck.
memcheck() { check sanitizer-memcheck watched memcheck; }
synccheck() {
    APUS_ATTENTION=own check sanitizer-synccheck watched synccheck --num-cuda-barriers 1024 \
        --kernel-name-exclude kernel_substring=nvjet
}
initcheck() {
    export APUS_ATTENTION=own
    doctor_options='--portable --batch-invariant' check sanitizer-initcheck watched initcheck
    unset APUS_ATTENTION
}
racecheck() {
    export APUS_ATTENTION=own
    # What the tool finds in cuBLAS' own kernels is not ours to mend: nothing else is in the check that is left out.
    doctor_options=--portable left_out='matmul of an f32 and a bf16 matrix' \
        check sanitizer-racecheck-portable check_by_check racecheck
    # Where a recorded graph holds a library's kernels the tool itself dies; the portable pass has had that check.
    left_out='generation, recorded|matmul of an f32 and a bf16 matrix' check sanitizer-racecheck check_by_check racecheck
    printf '%-34s %s\n' sanitizer-racecheck "left out: 'generation, recorded', which the portable pass has"
    unset APUS_ATTENTION
}

# The doctor under a tool of compute-sanitizer, with `doctor_options`.
watched() { # tool, options of it...
    # shellcheck disable=SC2086 # several options in one word
    compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 5 "${@:2}" \
        "$apus" doctor --device cuda --skip-speed ${doctor_options:-}
}

# The same, a process for each check, four at once: racecheck keeps what it saw in the host's memory, 100 GB of it all.
check_by_check() { # tool
    # shellcheck disable=SC2086
    "$apus" doctor --device cuda --skip-speed ${doctor_options:-} --json | grep -o '"op": "[^"]*"' | cut -d'"' -f4 |
        awk -v left_out="|${left_out:-}|" '!index(left_out, "|" $0 "|") { names[$0] } END {
            # What contains the name of another is run with that.
            for (one in names) { kept = 1; for (other in names) if (one != other && index(one, other)) kept = 0
                                 if (kept) print one } }' |
        xargs -d '\n' -P 4 -I '{}' compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 5 \
            "$apus" doctor --device cuda --skip-speed ${doctor_options:-} --only '{}'
}

for part in ${parts/sanitizer/memcheck synccheck initcheck racecheck}; do
    case $part in
        start | training) "$part" ;;
        memcheck | synccheck | initcheck | racecheck)
            if command -v compute-sanitizer >/dev/null; then
                "$part"
            else
                printf '%-34s %s\n' "$part" 'skipped: compute-sanitizer is not on PATH (it comes with the CUDA toolkit)'
            fi ;;
        doctor) check doctor "$apus" doctor --device cuda ;;
        portable) check doctor-portable "$apus" doctor --device cuda --portable --skip-speed ;;
        *) echo "check-gpu: '$part' is no part: see the first lines of $0" >&2 && exit 1 ;;
    esac
done
if ((${#failures[@]})); then
    printf '\n%s of the checks FAILED: %s; outputs are in %s\n' "${#failures[@]}" "${failures[*]}" "$logs"
    exit 1
fi
printf '\nall checks passed\n'
