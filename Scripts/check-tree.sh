#!/usr/bin/env bash
# Cheap checks of the whole tree: long files, unfinished marks, paths of one machine, shell syntax, heavy files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly most_lines=450
readonly most_bytes=4194304
failures=0

# Prints the findings, if any, under a heading.
report() { # heading, findings
    [[ -n $2 ]] || return 0
    printf '%s\n%s\n' "$1" "$2" | sed '2,$s/^/    /'
    failures=$((failures + 1))
}

# grep's 1, for no match, is the good case; anything above it is an error.
matches() { # pattern, files...
    local pattern=$1
    shift
    (($#)) || return 0
    grep -nIE -e "$pattern" -- "$@" || [[ $? == 1 ]]
}

# What is committed or about to be: ignored files are not looked at, nor are ones deleted but not yet committed.
files=()
while IFS= read -r -d '' file; do
    [[ -f $file ]] && files+=("$file")
done < <(git ls-files -z --cached --others --exclude-standard)
((${#files[@]})) || { echo "check-tree: git lists no file here" >&2 && exit 1; }

code=() scripts=() others=()
for file in "${files[@]}"; do
    case $file in
        Sources/*.swift | Sources/*.[ch] | Sources/*.cu | Sources/*.cuh | Tests/*.swift | Examples/*.swift) code+=("$file") ;;
        *.sh | .ci/run) scripts+=("$file") ;;
    esac
    [[ $file == Scripts/check-tree.sh || $file == LICENSE ]] || others+=("$file")
done

if ((${#code[@]})); then
    report "more than $most_lines lines: split by idea" "$(wc -l "${code[@]}" |
        awk -v most="$most_lines" '$1 > most && $2 != "total" { print $2 ": " $1 " lines" }')"
fi
report "unfinished marks: do it now, or file an issue" "$(matches '\b(TODO|FIXME|XXX)\b' "${others[@]}")"
report "paths of one machine: make them relative, or look them up" \
    "$(matches '(^|[^A-Za-z0-9_.~-])(/root/|/home/[a-z]|'"$PWD"'/)' "${others[@]}")"
report "more than $most_bytes bytes: make it smaller, or make it at run time" \
    "$(find "${files[@]}" -prune -size +"$most_bytes"c -print)"

for script in "${scripts[@]}"; do
    problems=$(bash -n "$script" 2>&1) || report "$script: shell syntax" "$problems"
    [[ -x $script ]] || report "$script: not executable" "chmod +x $script"
done
if command -v shellcheck >/dev/null && ((${#scripts[@]})); then
    problems=$(shellcheck "${scripts[@]}" 2>&1) || report "shellcheck" "$problems"
fi

if ((failures)); then
    echo "check-tree: $failures kinds of problem in ${#files[@]} files" >&2
    exit 1
fi
echo "check-tree: ${#files[@]} files, no problem"
