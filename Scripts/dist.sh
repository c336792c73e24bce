#!/usr/bin/env bash
# Makes dist/apus-VERSION-linux-x86_64.tar.xz: the command with the Swift and C++ runtimes linked in, for any x86-64 Linux
# with glibc 2.34 or later. Everything else (oneDNN, MPI, CUDA) is looked for when it runs. Fails, and says what is wrong,
# where the command would need more than that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=.build-dist
readonly newest_glibc=2.34
readonly most_bytes=30000000
readonly libraries='libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 libgcc_s.so.1 ld-linux-x86-64.so.2'

fail() {
    printf 'dist: %s\n' "$@" >&2
    exit 1
}

[[ $(uname -sm) == 'Linux x86_64' ]] || fail "the archive is for Linux on x86-64; this is $(uname -sm)"
for tool in xz objdump; do
    command -v "$tool" >/dev/null || fail "'$tool' is missing: install the packages xz-utils and binutils"
done
compiler=$(command -v clang || command -v gcc) || fail "no C compiler is on PATH: put Swift's usr/bin there, it has clang"

# A folder with the archive alone, searched first, makes the linker take it rather than libstdc++.so.
runtime=$("$compiler" -print-file-name=libstdc++.a)
[[ -r $runtime ]] || fail "libstdc++.a is missing: install the package libstdc++-N-dev of this system's GCC version N"
mkdir -p "$build/static"
ln -sfn "$runtime" "$build/static/libstdc++.a"
"$compiler" -O2 -fno-builtin -fno-math-errno -c Scripts/older-glibc.c -o "$build/static/older-glibc.o"

"${SWIFT:-swift}" build -c release --product apus --static-swift-stdlib --scratch-path "$build" \
    -Xlinker -s -Xlinker "-L$PWD/$build/static" -Xlinker "$PWD/$build/static/older-glibc.o"
readonly apus=$build/release/apus

needed=$(objdump -p "$apus" | awk '$1 == "NEEDED" { print $2 }')
for library in $needed; do
    [[ " $libraries " == *" $library "* ]] || fail "$apus needs the library $library; it may need: $libraries"
done

# One line for each version that the command asks its libraries for.
newer=()
while read -r version; do
    case $version in
        GLIBC_[0-9]*)
            [[ $(printf '%s\n' "${version#GLIBC_}" "$newest_glibc" | sort -V | tail -n 1) == "$newest_glibc" ]] && continue ;;
        GCC_[34].*) continue ;;
    esac
    newer+=("$version: $(objdump -T "$apus" | grep -F "($version)" | awk '{ print $NF }' | sort -u | tr '\n' ' ')")
done < <(objdump -p "$apus" | awk '/^Version References/ { inside = 1 } inside && $1 ~ /^0x/ { print $4 }' | sort -uV)
((${#newer[@]} == 0)) || fail "$apus would not start with glibc $newest_glibc. It needs these versions, for these functions" \
    "(Scripts/older-glibc.c is the place for our own):" "${newer[@]/#/    }"

version=$(env -i "$apus" --version) || fail "$apus --version failed"
readonly name=apus-$version-linux-x86_64
readonly archive=dist/$name.tar.xz
readonly folder=$build/archive
rm -rf "$folder"
mkdir -p dist "$folder/$name/licenses"
cp "$apus" LICENSE README.md "$folder/$name/"
cp -r Recipes "$folder/$name/"
# What is linked in keeps its terms.
for package in "$build"/checkouts/*/; do
    for license in "$package"LICENSE*; do cp "$license" "$folder/$name/licenses/$(basename "$package").txt"; done
done
swift_license=$(dirname "$(readlink -f "$(command -v "${SWIFT:-swift}")")")/../share/swift/LICENSE.txt
[[ ! -r $swift_license ]] || cp "$swift_license" "$folder/$name/licenses/swift.txt"

# The same tree gives the same bytes: names sorted, times of the last commit, no owner.
time=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar -C "$folder" --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --mode=u+w,go-w,a+rX -cf - "$name" |
    xz -9 -T1 >"$archive.part"
mv "$archive.part" "$archive"

bytes=$(stat -c %s "$archive")
((bytes <= most_bytes)) || fail "$archive has $bytes bytes; at most $most_bytes are allowed"
printf 'dist: %s\n' "$archive" "$bytes bytes, sha256 $(sha256sum <"$archive" | cut -d' ' -f1)" \
    "needs $(printf '%s ' $needed)and glibc $newest_glibc or later"
