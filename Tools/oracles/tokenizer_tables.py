"""Writes the Unicode tables of Sources/ApusData/Tokenizer/Unicode, as the `tokenizers` library sees Unicode.

The library mixes versions of Unicode: its regular expressions know a newer one than its normaliser. Ids equal to its own
need the same tables, so every scalar is put to the library, and its answers are written down as runs.

Usage:
    python tokenizer_tables.py            # rewrites the two files
    python tokenizer_tables.py --check    # says whether they are what the installed library gives
"""

import argparse
import pathlib
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "Sources/ApusData/Tokenizer/Unicode"
SCALARS = [value for value in range(0x110000) if not 0xD800 <= value < 0xE000]
BLOCK = 2000


def matching(pattern):
    """The scalars that a pattern of one scalar matches."""
    removing = pre_tokenizers.Split(Regex(pattern), behavior="removed")
    found = set()
    for start in range(0, len(SCALARS), BLOCK):
        block = SCALARS[start:start + BLOCK]
        text = "".join(map(chr, block))
        kept = {ord(scalar) for _, (first, end) in removing.pre_tokenize_str(text) for scalar in text[first:end]}
        found.update(value for value in block if value not in kept)
    return found


def numeric():
    """The scalars that the pre-tokenizer Digits cuts at."""
    digits = pre_tokenizers.Digits(individual_digits=False)
    found = set()
    for start in range(0, len(SCALARS), BLOCK):
        block = [value for value in SCALARS[start:start + BLOCK] if value != ord("!")]
        text = "!" + "!".join(map(chr, block)) + "!"
        ends = {end for _, (_, end) in digits.pre_tokenize_str(text)}
        found.update(value for place, value in enumerate(block) if 2 * place + 1 in ends and 2 * place + 2 in ends)
    return found


def word():
    """The scalars that an added token with `single_word` may not touch."""
    tokenizer = Tokenizer(models.BPE(vocab={"?": 0}, merges=[], unk_token="?", fuse_unk=True))
    tokenizer.add_tokens([AddedToken("\ue000x\ue000", single_word=True, normalized=False)])
    identity = tokenizer.token_to_id("\ue000x\ue000")
    found = set()
    for start in range(0, len(SCALARS), BLOCK):
        block = SCALARS[start:start + BLOCK]
        text = "".join(f"-\ue000x\ue000{chr(value)}" for value in block)
        encoding = tokenizer.encode(text)
        starts = {first for token, (first, _) in zip(encoding.ids, encoding.offsets) if token == identity}
        found.update(value for place, value in enumerate(block) if 5 * place + 1 not in starts)
    return found


def combining_classes(nfd):
    """Scalar to its canonical combining class, for those that the library reorders."""
    classes = {}
    for value in SCALARS:
        order = unicodedata.combining(chr(value))
        if order == 0 or nfd.normalize_str(chr(value)) != chr(value):
            continue
        # Class 1 moves before class 240, every other class behind class 1.
        probe = f"a\u0345{chr(value)}" if order == 1 else f"a{chr(value)}\u0334"
        if nfd.normalize_str(probe) != probe:
            classes[value] = order
    return classes


def decompositions(nfc, nfd):
    """Scalar to the one or two that it is made of, and those of the pairs that are never put together again."""
    table, excluded = {}, []
    for value in SCALARS:
        text = unicodedata.decomposition(chr(value))
        if not text or text.startswith("<") or nfd.normalize_str(chr(value)) == chr(value):
            continue
        parts = [int(part, 16) for part in text.split()]
        table[value] = parts
        if len(parts) == 2 and nfc.normalize_str(chr(value)) != chr(value):
            excluded.append(value)
    return table, excluded


def runs(values):
    """(first, last) of each run of neighbours."""
    found = []
    for value in sorted(values):
        if found and found[-1][1] == value - 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return found


def array(name, note, numbers):
    """A Swift array of whole numbers, wrapped at 120 columns."""
    lines, line = [], "       "
    for number in numbers:
        entry = f" {number},"
        if len(line) + len(entry) > 120:
            lines.append(line)
            line = "       "
        line += entry
    return "\n".join([f"    /// {note}", f"    static let {name}: [UInt32] = [", *lines, line, "    ]"])


def steps(pairs):
    """Runs as (gap since the last run's end, length): small numbers."""
    numbers, end = [], 0
    for first, last in pairs:
        numbers += [first - end, last - first + 1]
        end = last + 1
    return numbers


def hangul(value):
    return 0xAC00 <= value < 0xAC00 + 11172


def texts():
    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    classes = combining_classes(nfd)
    table, excluded = decompositions(nfc, nfd)
    table = {value: parts for value, parts in table.items() if not hangul(value)}
    check_composition(nfc, classes, table, excluded)
    head = (f"// Written by Tools/oracles/tokenizer_tables.py from tokenizers {tokenizers.__version__}; "
            "run it rather than edit this.\n")
    kinds = [("letters", r"`\p{L}` of the regular expressions.", matching(r"\p{L}")),
             ("numbers", r"`\p{N}` of the regular expressions.", matching(r"\p{N}")),
             ("spaces", r"`\s` of the regular expressions.", matching(r"\s")),
             ("digits", "What the pre-tokenizer Digits cuts at.", numeric()),
             ("words", "What an added token that must be a word of its own may not touch.", word())]
    ranges = [head, "/// Kinds of scalars as runs: each is the gap since the end of the last one, and a length.",
              "enum ScalarRanges {",
              "\n\n".join(array(name, note, steps(runs(values))) for name, note, values in kinds), "}", ""]
    by_class = [number for value in sorted(classes) for number in (value, classes[value])]
    singles = [number for value, parts in sorted(table.items()) if len(parts) == 1 for number in (value, *parts)]
    pairs = [number for value, parts in sorted(table.items()) if len(parts) == 2 for number in (value, *parts)]
    canonical = [head, "/// Canonical decompositions and the order of combining marks (Unicode, annex 15), without Hangul.",
                 "enum CanonicalTables {", "\n\n".join([
                     array("combiningClasses", "Scalar and its combining class, where that is not 0.", by_class),
                     array("singles", "Scalar and the one that it stands for.", singles),
                     array("pairs", "Scalar and the two that it is made of.", pairs),
                     array("excluded", "Of ``pairs``, those that are not put together again.", excluded)]), "}", ""]
    return {"ScalarRanges.swift": "\n".join(ranges), "CanonicalTables.swift": "\n".join(canonical)}


def check_composition(nfc, classes, table, excluded):
    """The tables are all that composition needs: every pair composes, or is excluded."""
    for value, parts in table.items():
        if len(parts) == 2 and value not in excluded:
            assert nfc.normalize_str("".join(map(chr, parts))) == chr(value), hex(value)
    assert max(classes.values()) < 256


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, text in texts().items():
        path = FOLDER / name
        if check:
            stale += [name] if not path.exists() or path.read_text() != text else []
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not what tokenizers {tokenizers.__version__} gives: {', '.join(stale)}")


if __name__ == "__main__":
    main()
