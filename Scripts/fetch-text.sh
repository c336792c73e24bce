#!/usr/bin/env bash
# Writes the text that the quickstart recipe trains on: the King James Bible (public domain), from the package
# bible-kjv-text, one verse a line, with an empty line before each chapter. The same package gives the same bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly output=${1:-.apus/text/quickstart.txt}
readonly least_bytes=3000000

fail() {
    printf 'text: %s\n' "$@" >&2
    exit 1
}

command -v bible >/dev/null || fail "the command 'bible' is missing: run Scripts/setup.sh --demo," \
    "or train on a file of your own: make demo TEXT=path/to/file.txt"

mkdir -p "$(dirname "$output")"
partial=$(mktemp "$output.XXXXXX")
trap 'rm -f "$partial"' EXIT

# With -f each verse is one line that starts with its reference, such as "1Sm3:14"; the model should not learn those.
LC_ALL=C bible -f Gen1:1-Rev22:21 </dev/null |
    LC_ALL=C awk '$1 ~ /:1$/ && NR > 1 { print "" } { sub(/^[^ ]+ /, ""); print }' >"$partial"

bytes=$(wc -c <"$partial")
((bytes >= least_bytes)) || fail "'bible' printed $bytes bytes; at least $least_bytes were expected." \
    "Reinstall bible-kjv and bible-kjv-text, or train on a file of your own: make demo TEXT=path/to/file.txt"
chmod 644 "$partial"
mv "$partial" "$output"

version=$(dpkg-query -W -f '${Version}' bible-kjv-text 2>/dev/null || echo 'unknown version')
printf 'text: %s\n' "$output"
printf '      from bible-kjv-text %s, %d bytes, sha256 %s\n' "$version" "$bytes" "$(sha256sum <"$output" | cut -d' ' -f1)"
