"""Compares encoding by Apus and by the `tokenizers` library on the same text, tokenizer and number of threads.

Both load the tokenizer and the documents; then they encode all documents in turn, round by round, so that neither
computes while the other is timed and both see the same machine. The ids must be the same. The result is a Markdown
table with the ratio of the medians.

Usage:
    python tokenizer_encode.py --apus "apus bench tokenizer" --tokenizer FILE --threads 2 --rounds 7 TEXT...
    python tokenizer_encode.py --peer --tokenizer FILE --threads 2 TEXT...     # one round for each line of input

A program under test is run as `COMMAND --interactive --threads N --tokenizer FILE TEXT...`; it says `ready`, and for
each line of standard input encodes every text as one document and prints an object with `seconds`, `tokens`,
`checksum` (FNV-1a of each text's first and last thousand ids, 32 bits each, in the texts' order) and `version`.
"""

import argparse
import array
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time


def checksum(encodings):
    """FNV-1a over the first thousand and the last thousand ids of each text, four bytes each."""
    value = 0xCBF29CE484222325
    for ids in encodings:
        for byte in array.array("I", ids[:1000] + ids[-1000:]).tobytes():
            value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def peer(args):
    """The library, spoken to by lines."""
    # Read by the library when its threads start.
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(args.tokenizer)
    tokenizer.encode_special_tokens = True
    texts = [pathlib.Path(path).read_bytes().decode() for path in args.texts]
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        # Without offsets: the library's fastest form.
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "tokens": sum(map(len, ids)), "checksum": checksum(ids),
                          "version": tokenizers.__version__}), flush=True)


class Program:
    """One of the two."""

    def __init__(self, name, command):
        self.name, self.seconds, self.last = name, [], {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"{name} did not get ready: {line.strip() or 'it ended'} ({shlex.join(command)})")

    def round(self, counts):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}")
        self.last = json.loads(line)
        if counts:
            self.seconds.append(self.last["seconds"])

    def row(self, size, reference):
        median = statistics.median(self.seconds)
        return (f"| {self.name} {self.last['version']} | {size / median / 1e6:.1f} | "
                f"{size / max(self.seconds) / 1e6:.1f} to {size / min(self.seconds) / 1e6:.1f} | "
                f"{self.last['tokens'] / median / 1e6:.2f} | "
                f"{statistics.median(reference.seconds) / median:.1f} |")


def compare(args):
    """Alternates the two."""
    common = ["--threads", str(args.threads), "--tokenizer", args.tokenizer, *args.texts]
    apus = Program("Apus", [*shlex.split(args.apus), "--interactive", *common])
    library = Program("tokenizers", [sys.executable, __file__, "--peer", *common])
    for number in range(args.rounds + 1):
        # Who goes first changes; the first round of each fills caches and does not count.
        for program in (apus, library) if number % 2 else (library, apus):
            program.round(counts=number > 0)
    for key in ("tokens", "checksum"):
        if apus.last[key] != library.last[key]:
            sys.exit(f"the ids differ: {key} {apus.last[key]} and {library.last[key]}")
    for program in (apus, library):
        program.process.stdin.close()
        program.process.wait()
    size = sum(pathlib.Path(path).stat().st_size for path in args.texts)
    print(f"Encoding {len(args.texts)} texts of {size / 1e6:.1f} MB with {pathlib.Path(args.tokenizer).name}, "
          f"{args.threads} threads, {args.rounds} rounds each, in turn; ids are equal.\n")
    print("| program | median MB/s | range MB/s | M tokens/s | times tokenizers |")
    print("|---|---|---|---|---|")
    print(apus.row(size, library))
    print(library.row(size, library))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--apus", default=f"{here.parent.parent}/.build/release/apus bench tokenizer")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("texts", nargs="+")
    args = parser.parse_args()
    peer(args) if args.peer else compare(args)


if __name__ == "__main__":
    main()
