"""Compares Apus with the `tokenizers` library: encoding, loading and training, on the same texts and threads.

Both programs load the tokenizer and the documents; then they do each task in turn, round by round, so that neither
computes while the other is timed and both see the same machine. The ids of encoding must be the same. The result is a
Markdown table with the ratio of the medians.

Usage:
    python tokenizer_encode.py --threads 2 --rounds 7 --tokenizer FILE TEXT...
    python tokenizer_encode.py --threads 2 --rounds 3 --vocabulary 8192 TEXT...     # trains one, and encodes with it
    python tokenizer_encode.py --rounds 7 --large FILE       # writes FILE, of 150,000 tokens, and compares loading it
    python tokenizer_encode.py --peer --tokenizer FILE --threads 2 TEXT...    # one task for each line of input

A program under test is run as `COMMAND --interactive --threads N --tokenizer FILE [--vocab N] TEXT...`, by default
`apus bench tokenizer`. It says `ready`, and for each line of standard input does one task and prints an object with
`seconds` and `version`: `load` reads the tokenizer's file, `train` learns a vocabulary from the texts, and any other
line encodes every text as one document, which adds `tokens` and `checksum` (FNV-1a of each text's first and last
thousand ids, 32 bits each, in the texts' order, hexadecimal).
"""

import argparse
import array
import itertools
import json
import os
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import time

TASKS = {"encode": "MB/s", "load": "s", "train": "s"}


def checksum(encodings):
    """FNV-1a over the first thousand and the last thousand ids of each text, four bytes each."""
    value = 0xCBF29CE484222325
    for ids in encodings:
        for byte in array.array("I", ids[:1000] + ids[-1000:]).tobytes():
            value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{value:x}"


def train(paths, vocabulary):
    """A byte-level tokenizer cut as `apus tokenizer train` cuts by default, learned by the library."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, min_frequency=2, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train(paths, trainer)
    return tokenizer


def write_large(path, tokens=150_000, merges=280_000):
    """A tokenizer file of a size as large vocabularies have: its merges are put together, not learned."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    common = ["Ġ"] + [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = letters + ["".join(pair) for pair in itertools.product(common, repeat=2)]
    vocabulary += ["".join(triple) for triple in itertools.product(common, repeat=3)]
    draw, known = random.Random(1), set(vocabulary)
    while len(vocabulary) < tokens:
        word = "".join(draw.choices(common, k=draw.choice([4, 5, 6])))
        # Both halves of at least one split are tokens: those of up to three letters all are.
        if word not in known:
            known.add(word)
            vocabulary.append(word)
    rules = {}
    # A first way to build each token, then second and third ways.
    for shift in range(3):
        for word in vocabulary[len(letters):]:
            cuts = [cut for cut in range(1, len(word)) if word[:cut] in known and word[cut:] in known]
            if shift < len(cuts) and len(rules) < merges:
                rules[word[:cuts[shift]], word[cuts[shift]:]] = None
    tokenizer = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(vocabulary)}, merges=list(rules)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    return len(vocabulary), len(rules)


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
    for line in sys.stdin:
        task, answer = line.strip(), {"version": tokenizers.__version__}
        start = time.perf_counter()
        if task == "load":
            tokenizers.Tokenizer.from_file(args.tokenizer)
        elif task == "train":
            train(args.texts, args.vocab)
        else:
            # Without offsets: the library's fastest form.
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ids = [encoding.ids for encoding in encodings]
        answer["seconds"] = time.perf_counter() - start
        if task not in ("load", "train"):
            answer |= {"tokens": sum(map(len, ids)), "checksum": checksum(ids)}
        print(json.dumps(answer), flush=True)


class Program:
    """One of the two."""

    def __init__(self, name, command):
        self.name, self.seconds, self.answers = name, {task: [] for task in TASKS}, {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"{name} did not get ready: {line.strip() or 'it ended'} ({shlex.join(command)})")

    def round(self, task, counts):
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}")
        self.answers[task] = json.loads(line)
        if counts:
            self.seconds[task].append(self.answers[task]["seconds"])

    def row(self, task, size, reference):
        seconds = self.seconds[task]
        median = statistics.median(seconds)
        shown = [median, max(seconds), min(seconds)] if task == "encode" else [median, min(seconds), max(seconds)]
        first, low, high = (f"{size / value / 1e6:.1f}" if task == "encode" else f"{value:.3f}" for value in shown)
        ratio = statistics.median(reference.seconds[task]) / median
        return (f"| {task} | {self.name} {self.answers[task]['version']} | {first} {TASKS[task]} | {low} to {high} "
                f"| {ratio:.1f} |")


def compare(args):
    """Alternates the two."""
    tasks = ["load"] + (["encode"] if args.texts else []) + (["train"] if args.vocabulary else [])
    common = ["--threads", str(args.threads), "--tokenizer", args.tokenizer]
    common += (["--vocab", str(args.vocabulary)] if args.vocabulary else []) + args.texts
    apus = Program("Apus", [*shlex.split(args.apus), "--interactive", *common])
    library = Program("tokenizers", [sys.executable, __file__, "--peer", *common])
    for task in tasks:
        for number in range(args.rounds + 1):
            # Who goes first changes; the first round of each fills caches and does not count.
            for program in (apus, library) if number % 2 else (library, apus):
                program.round(task, counts=number > 0)
    if args.texts:
        for key in ("tokens", "checksum"):
            if apus.answers["encode"][key] != library.answers["encode"][key]:
                sys.exit(f"the ids differ: {key} {apus.answers['encode'][key]} and {library.answers['encode'][key]}")
    for program in (apus, library):
        program.process.stdin.close()
        program.process.wait()
    size = sum(pathlib.Path(path).stat().st_size for path in args.texts)
    file = pathlib.Path(args.tokenizer)
    texts = f"{len(args.texts)} texts of {size / 1e6:.1f} MB, " if args.texts else ""
    print(f"{texts}{file.name} of {file.stat().st_size / 1e6:.1f} MB, {args.threads} threads, {args.rounds} rounds each, "
          f"in turn{'; ids are equal' if args.texts else ''}.\n")
    print("| task | program | median | range | times tokenizers |")
    print("|---|---|---|---|---|")
    for task in tasks:
        print(apus.row(task, size, library))
        print(library.row(task, size, library))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--apus", default=f"{here.parent.parent}/.build/release/apus bench tokenizer")
    parser.add_argument("--peer", action="store_true", help="be the library")
    parser.add_argument("--tokenizer", help="a tokenizer.json")
    parser.add_argument("--vocabulary", "--vocab", dest="vocabulary", type=int, help="tokens of a vocabulary to train")
    parser.add_argument("--large", help="write a large tokenizer.json here, and compare loading it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("texts", nargs="*")
    args = parser.parse_args()
    args.vocab = args.vocabulary
    if args.large:
        args.tokenizer = args.large
        print("{:,} tokens and {:,} merges in {}".format(*write_large(pathlib.Path(args.large)), args.large))
    elif args.vocabulary and not args.tokenizer:
        args.tokenizer = str(pathlib.Path(args.texts[0]).with_suffix(".tokenizer.json"))
        train(args.texts, args.vocabulary).save(args.tokenizer)
    if not args.tokenizer:
        parser.error("give --tokenizer, --vocabulary or --large")
    peer(args) if args.peer else compare(args)


if __name__ == "__main__":
    main()
