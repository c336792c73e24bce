#!/usr/bin/env bash
# Writes the images that Recipes/vision.yaml trains on and those that it is measured by: 1797 handwritten digits of 8 x 8
# pixels (UCI's "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998), from the package scikit-learn, of which
# one file is read and nothing is installed. The same version gives the same bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly folder=${1:-.apus/images}
readonly package=scikit-learn==1.7.2

fail() {
    printf 'images: %s\n' "$@" >&2
    exit 1
}

python=
for python in .apus/venv/bin/python3 python3 ''; do
    if [[ -n $python ]] && "$python" -m pip --version >/dev/null 2>&1; then break; fi
done
[[ -n $python ]] || fail "Python 3 with pip is needed to fetch the package $package: run Scripts/setup.sh --test"

mkdir -p "$folder"
wheels=$(mktemp -d "$folder/wheel.XXXXXX")
trap 'rm -rf "$wheels"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --retries 3 --no-deps --only-binary :all: \
    --dest "$wheels" "$package" || fail "could not fetch $package; a network or a mirror of PyPI is needed"

"$python" - "$wheels" "$folder" <<'PYTHON'
"""Digits of scikit-learn's wheel to files of images, whose form Sources/ApusData/Images/ImageHeader.swift tells."""
import glob
import gzip
import os
import struct
import sys
import zipfile
import zlib

wheels, folder = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(wheels, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    text = gzip.decompress(archive.read("sklearn/datasets/data/digits.csv.gz")).decode()
rows = [[int(float(value)) for value in line.split(",")] for line in text.split()]
assert len(rows) == 1797 and all(len(row) == 65 for row in rows), "the package's digits are not 1797 of 8 x 8"

# The last fifth, in the file's order, is kept apart.
cut = len(rows) * 4 // 5
for name, part in (("digits-train", rows[:cut]), ("digits-test", rows[cut:])):
    labels = b"".join(struct.pack("<H", row[64]) for row in part)
    # A pixel is from 0 to 16 there.
    pixels = bytes(round(value * 255 / 16) for row in part for value in row[:64])
    body = labels + pixels
    header = struct.pack("<8sIIIIQI", b"apusimgs", 1, 8, 8, 1, len(part), zlib.crc32(body)).ljust(64, b"\0")
    path = os.path.join(folder, name + ".images")
    with open(path + ".partial", "wb") as file:
        file.write(header + body)
    os.replace(path + ".partial", path)
    print(f"images: {path}, {len(part)} images, {len(header + body)} bytes")
PYTHON
