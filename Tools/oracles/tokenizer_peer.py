"""The `tokenizers` library as the tests of Apus' tokenizer need it: text, tokenizer files, ids, trained vocabularies.

Nothing is downloaded: the text is Debian's installation guide in nineteen languages (package installation-guide-amd64)
and Python's own library as code; tokenizers in the styles of published ones are trained on it here.

Usage:
    python tokenizer_peer.py text FOLDER                   # one file a language, and code.txt
    python tokenizer_peer.py make FOLDER TEXT... [--vocabulary N] [--style NAME]... [--most BYTES]
    python tokenizer_peer.py encode TOKENIZER DOCUMENTS RESULT [--plain]
    python tokenizer_peer.py train OUT TEXT... --vocabulary N --style NAME [--least N]
    python tokenizer_peer.py read TOKENIZER                # fails unless the library reads the file
    python tokenizer_peer.py pieces OUT DOCUMENTS RESULT TEXT... --kind bpe|unigram    # SentencePiece, from its package

Documents and results are binary, little-endian: see `write_blocks`.
"""

import argparse
import array
import gzip
import json
import pathlib
import struct
import sys
import sysconfig

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GUIDE = pathlib.Path("/usr/share/doc/installation-guide-amd64")
LANGUAGES = ["ca", "cs", "da", "de", "el", "en", "es", "fr", "id", "it", "ja", "ko", "nl", "pt", "ro", "ru", "sv", "vi",
             "zh_CN"]
CODE_BYTES = 1_000_000

MARKED = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
STYLES = ["gpt2", "neox", "llama3", "qwen", "mixtral", "metaspace", "starcoder"]


def write_text(folder):
    """Plain text of every language, and of the standard library's modules in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        path = GUIDE / language / f"install.{language}.txt.gz"
        if not path.exists():
            sys.exit(f"{path} is missing: install the package installation-guide-amd64")
        text = gzip.decompress(path.read_bytes()).decode("koi8-r" if language == "ru" else "utf-8")
        (folder / f"{language}.txt").write_bytes(text.encode())
    code = b""
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if len(code) < CODE_BYTES:
            code += path.read_bytes()
    (folder / "code.txt").write_bytes(code[:CODE_BYTES].decode(errors="ignore").encode())


def byte_level(style):
    """A tokenizer of one style without its vocabulary."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=style == "llama3"))
    split = {"llama3": MARKED % r"\p{N}{1,3}", "qwen": MARKED % r"\p{N}"}.get(style)
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    elif style == "starcoder":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=style == "gpt2-prefix")
    if style in ("neox", "qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_trainer(vocabulary, least, specials):
    return trainers.BpeTrainer(vocab_size=vocabulary, min_frequency=least, special_tokens=specials, show_progress=False,
                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def make(style, texts, vocabulary):
    """A tokenizer as the published ones of its style are put together, trained on `texts`."""
    if style in ("mixtral", "metaspace"):
        return marked_spaces(style, texts, vocabulary)
    tokenizer = byte_level(style)
    # Llama's and Qwen's special tokens follow their vocabulary, the older ones' come first.
    late = style in ("llama3", "qwen")
    tokenizer.train_from_iterator(texts, byte_trainer(vocabulary, 0, [] if late else ["<|endoftext|>"]))
    post = processors.ByteLevel(trim_offsets=False)
    if style == "llama3":
        tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"]
                                     + [f"<|reserved_special_token_{n}|>" for n in range(60)])
        begin = tokenizer.token_to_id("<|begin_of_text|>")
        post = processors.Sequence([post, processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[("<|begin_of_text|>", begin)])])
    elif style == "qwen":
        tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    elif style == "neox":
        tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    else:
        tokenizer.add_tokens([
            AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=True), AddedToken("ümlaut", normalized=True),
            AddedToken("two words", normalized=False)])
    tokenizer.post_processor = post
    return tokenizer


def marked_spaces(style, texts, vocabulary):
    """The style of files made from SentencePiece models: spaces are marks, unknown characters fall back to bytes."""
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # Trained on words, as such models are, whichever way they cut text afterwards.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=specials, limit_alphabet=600, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if style == "mixtral":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
        tokenizer.decoder = decoders.Sequence(fallback)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(fallback)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    # The byte tokens are of the vocabulary and not added ones, as in the published files.
    text = tokenizer.to_str()
    file = json.loads(text)
    file["added_tokens"] = [token for token in file["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(file))


def read_blocks(path):
    """Byte strings: each its length in four bytes, then itself."""
    data, place, blocks = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<I", data, place)
        blocks.append(data[place + 4:place + 4 + length])
        place += 4 + length
    return blocks


def write_blocks(path, blocks):
    """Writes what `read_blocks` reads."""
    with open(path, "wb") as file:
        for block in blocks:
            file.write(struct.pack("<I", len(block)))
            file.write(block)


def encode(tokenizer, documents, plain_only):
    """Three blocks a document: ids of it as plain text, ids with special tokens and template, and those as text.

    With `plain_only` the first of them alone.
    """
    texts = [document.decode() for document in documents]
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    if plain_only:
        yield from (array.array("I", encoding.ids).tobytes() for encoding in plain)
        return
    tokenizer.encode_special_tokens = False
    special = tokenizer.encode_batch_fast(texts, add_special_tokens=True)
    for first, second in zip(plain, special):
        yield array.array("I", first.ids).tobytes()
        yield array.array("I", second.ids).tobytes()
        yield tokenizer.decode(second.ids, skip_special_tokens=True).encode()


def pieces(out, documents, result, texts, kind):
    """Trains a SentencePiece model, and writes each document's ids and the text that they give."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=[str(path) for path in texts], model_prefix=str(out.with_suffix("")), model_type=kind, vocab_size=2000,
        byte_fallback=True, character_coverage=0.9995, num_threads=1, minloglevel=2, input_sentence_size=5000,
        shuffle_input_sentence=False, user_defined_symbols=["<sep>"])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(out))
    blocks = []
    for document in read_blocks(documents):
        ids = processor.encode(document.decode())
        blocks += [array.array("I", ids).tobytes(), processor.decode(ids).encode()]
    write_blocks(result, blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    text = commands.add_parser("text")
    text.add_argument("folder", type=pathlib.Path)
    making = commands.add_parser("make")
    making.add_argument("folder", type=pathlib.Path)
    making.add_argument("texts", type=pathlib.Path, nargs="+")
    making.add_argument("--vocabulary", type=int, default=8000)
    making.add_argument("--most", type=int, help="bytes of each text")
    making.add_argument("--style", action="append", choices=STYLES)
    encoding = commands.add_parser("encode")
    for name in ("tokenizer", "documents", "result"):
        encoding.add_argument(name, type=pathlib.Path)
    encoding.add_argument("--plain", action="store_true")
    training = commands.add_parser("train")
    training.add_argument("out", type=pathlib.Path)
    training.add_argument("texts", type=pathlib.Path, nargs="+")
    training.add_argument("--vocabulary", type=int, required=True)
    training.add_argument("--least", type=int, default=0)
    training.add_argument("--special", action="append", default=[])
    training.add_argument("--style", choices=["gpt2", "llama3", "qwen"], default="gpt2")
    reading = commands.add_parser("read")
    reading.add_argument("tokenizer", type=pathlib.Path)
    piecing = commands.add_parser("pieces")
    for name in ("out", "documents", "result"):
        piecing.add_argument(name, type=pathlib.Path)
    piecing.add_argument("texts", type=pathlib.Path, nargs="+")
    piecing.add_argument("--kind", choices=["bpe", "unigram"], required=True)
    args = parser.parse_args()

    if args.command == "text":
        write_text(args.folder)
    elif args.command == "make":
        args.folder.mkdir(parents=True, exist_ok=True)
        texts = [path.read_bytes()[:args.most].decode(errors="ignore") for path in args.texts]
        for style in args.style or STYLES:
            make(style, texts, args.vocabulary).save(str(args.folder / f"{style}.json"))
    elif args.command == "encode":
        tokenizer = Tokenizer.from_file(str(args.tokenizer))
        write_blocks(args.result, encode(tokenizer, read_blocks(args.documents), args.plain))
    elif args.command == "train":
        tokenizer = byte_level(args.style)
        texts = [path.read_bytes().decode() for path in args.texts]
        tokenizer.train_from_iterator(texts, byte_trainer(args.vocabulary, args.least, args.special))
        tokenizer.save(str(args.out))
    elif args.command == "pieces":
        pieces(args.out, args.documents, args.result, args.texts, args.kind)
    else:
        print(Tokenizer.from_file(str(args.tokenizer)).get_vocab_size())


if __name__ == "__main__":
    main()
