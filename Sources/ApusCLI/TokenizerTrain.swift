import ApusData
import ApusTensor
import ArgumentParser

/// `apus tokenizer`: vocabularies of one's own.
struct TokenizerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenizer", abstract: "Make a tokenizer from text.", subcommands: [TokenizerTrain.self])
}

/// `apus tokenizer train`: byte-level BPE from text files to a tokenizer.json.
struct TokenizerTrain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Train a byte-level BPE tokenizer, written as tokenizer.json.",
        discussion: """
            An INPUT is what 'apus data prepare' takes: text, JSONL, either as .gz or .zst, a folder, or - for standard input. \
            The file is the form of Hugging Face's tokenizers library, which reads it too. The same text gives the same \
            file, whatever the number of threads.

            Example:
              apus tokenizer train book.txt --vocab 8000 --out tokenizer.json
              apus data prepare book.txt --tokenizer tokenizer.json --out prepared/book
            """)

    @Argument(help: "Files, folders, or - for standard input.")
    var inputs: [String]

    @Option(help: "Tokens of the vocabulary, special ones included.")
    var vocab: Int

    @Option(help: "The file to write.")
    var out: String

    @Option(help: "How text is cut into words: gpt2, llama3 or qwen2.")
    var pattern = BPETrainer.Pattern.llama3.rawValue

    @Option(help: "A special token; the first ends a document. May be given more than once.")
    var special = ["<|endoftext|>"]

    @Option(help: "How documents lie in the files: auto (by the files' names), text or jsonl.")
    var format = "auto"

    @OptionGroup var threads: ThreadOptions

    func validate() throws {
        guard BPETrainer.Pattern(rawValue: pattern) != nil else {
            throw ValidationError("--pattern is '\(pattern)'; it must be gpt2, llama3 or qwen2")
        }
        let least = 256 + special.count
        guard InputFormat(rawValue: format) != nil else {
            throw ValidationError("--format must be auto, text or jsonl")
        }
        if inputs.count(where: { $0 == "-" }) > 1 { throw ValidationError("- can be given once") }
        guard (least...1 << 22).contains(vocab) else {
            throw ValidationError(
                "--vocab is \(vocab); it must be from \(least), for all bytes and special tokens, to \(1 << 22)")
        }
    }

    func run() throws {
        let trainer = BPETrainer(
            vocabularySize: vocab, specialTokens: special, pattern: BPETrainer.Pattern(rawValue: pattern) ?? .llama3)
        let (seconds, tokenizer) = try timed {
            try trainer.train(
                files: inputs, format: InputFormat(rawValue: format) ?? .auto,
                pool: ThreadPool(threadCount: threads.count))
        }
        try tokenizer.write(to: out)
        print("\(tokenizer.size) tokens in \(fixed(seconds, 1)) s: \(out)")
        if tokenizer.size < vocab {
            writeError(
                "note: \(vocab) were asked for, and no further pair of tokens occurs twice; train on more text for more"
            )
        }
    }
}
