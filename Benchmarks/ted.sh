#!/usr/bin/env bash
# Makes Benchmarks/reports/ted.md of what this machine has: always the section of ranks that are threads of one process,
# and, with two GPUs and mpirun, the section of two GPUs. A section that cannot be made here stays as it was.
# APUS: the program (default .build/release/apus).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly apus=${APUS:-.build/release/apus}
readonly report=Benchmarks/reports/ted.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

[[ -x $apus ]] || { echo "ted.sh: no program at $apus: make build, or set APUS" >&2 && exit 1; }

# The lines of a section of the report as it is, its marks included; nothing when there is none.
section() { # name
    [[ -f $report ]] || return 0
    sed -n "/^<!-- $1 -->\$/,/^<!-- end of $1 -->\$/p" "$report"
}

# Runs a command; its words and what it printed become a part of a section.
part() { # words...
    # shellcheck disable=SC2016 # The backquotes are Markdown's.
    printf '```\n%s\n```\n\n' "${*/"$apus"/apus}"
    "$@"
}

threads() {
    printf '<!-- threads -->\n## Ranks that are threads of one process\n\n'
    printf '%s, %s cores.\n\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)"
    part "$apus" bench ted
    printf '<!-- end of threads -->\n'
}

gpus() {
    local size=(--width 2048 --hidden 8192 --layers 8 --sequence 2048 --micro-batch 2 --rounds 10)
    printf '<!-- gpus -->\n## Two GPUs\n\n'
    printf '%s.\n\n' "$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 2 | paste -sd ',' | sed 's/,/, /')"
    part mpirun -n 2 "$apus" bench ted --device cuda --tensor 2 --expert 1 "${size[@]}"
    part mpirun -n 2 "$apus" bench ted --device cuda --tensor 1 --expert 2 "${size[@]}"
    printf '<!-- end of gpus -->\n'
}

has_two_gpus() {
    command -v nvidia-smi >/dev/null && command -v mpirun >/dev/null &&
        (($(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l) >= 2))
}

threads >"$scratch/threads"
if has_two_gpus; then gpus >"$scratch/gpus"; else section gpus >"$scratch/gpus"; fi

{
    cat <<'HEAD'
# DeepSpeed-TED: calls, bytes, memory

Made by one command, on each machine for its own section:

```
make report-ted
```

The paper's mechanisms and where each lives: `Sources/ApusSystems/DeepSpeedTED/DeepSpeedTED.swift`. Every figure is of a
run; what is expected beside it is a formula of sizes alone (`TEDTraffic`, `TEDMemory`).

HEAD
    cat "$scratch/threads"
    if [[ -s $scratch/gpus ]]; then printf '\n' && cat "$scratch/gpus"; fi
} >"$scratch/report"
mkdir -p "$(dirname "$report")"
mv "$scratch/report" "$report"
echo "wrote $report"
