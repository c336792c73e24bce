import ApusData
import ApusTensor
import ArgumentParser

/// `apus bench tokenizer`: loading, encoding and training.
struct BenchTokenizer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenizer", abstract: "Measure loading a tokenizer, encoding text, and training one.",
        discussion: """
            Each TEXT is one document; texts are read before the clock starts. --vocab trains on them, and encodes with the \
            result unless --tokenizer names another.

            Example:
              apus bench tokenizer book.txt --vocab 8192
              apus bench tokenizer book.txt --tokenizer tokenizer.json --json
            """)

    @Argument(help: "Text files.")
    var texts: [String] = []

    @Option(help: "A tokenizer.json, or a SentencePiece .model.")
    var tokenizer: String?

    @Option(help: "Tokens of a vocabulary to train.")
    var vocab: Int?

    @OptionGroup var repeats: RoundOptions

    @OptionGroup var threads: ThreadOptions

    @Flag(help: "Say 'ready', then do one task for each line of input and print an object: encode, load, or train.")
    var interactive = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if tokenizer == nil, vocab == nil { throw ValidationError("give --tokenizer or --vocab") }
        if texts.isEmpty, vocab != nil { throw ValidationError("--vocab needs texts to train on") }
        if let vocab, !(257...1 << 22).contains(vocab) {
            throw ValidationError("--vocab is \(vocab); it must be from 257 to \(1 << 22)")
        }
        if interactive, json { throw ValidationError("--interactive and --json exclude each other") }
    }

    func run() throws {
        let bench = try TokenizerTasks(self)
        if interactive { return try bench.answer() }
        let rounds = repeats.rounds ?? 5
        let training = try vocab.map { _ in try bench.train() }
        let loading = try (0..<rounds).map { _ in try bench.load() }
        // The first round fills caches.
        let encoding = texts.isEmpty ? [] : try (0...rounds).map { _ in try bench.encode().seconds }.dropFirst()
        report(bench, training, median(loading), encoding.isEmpty ? nil : median(Array(encoding)))
    }

    private func report(_ bench: TokenizerTasks, _ training: Double?, _ loading: Double, _ encoding: Double?) {
        let speed = encoding.map { Double(bench.bytes) / 1e6 / $0 }
        if json {
            let fields: [(String, JSONText)] = [
                ("bench", .string("tokenizer")), ("threads", .integer(threads.count)),
                ("vocabulary", .integer(bench.vocabulary.size)), ("bytes", .integer(bench.bytes)),
                ("load_seconds", .number(loading)), ("train_seconds", .optional(training) { .number($0) }),
                ("encode_seconds", .optional(encoding) { .number($0) }),
                ("encode_megabytes_per_second", .optional(speed) { .number($0) }),
                ("tokens", .integer(bench.tokens)),
            ]
            return print(JSONText.object(fields))
        }
        var rows = [["vocabulary", "\(grouped(bench.vocabulary.size)) ids"]]
        if let training {
            rows.append(["train", "\(fixed(training, 2)) s on \(fixed(Double(bench.bytes) / 1e6, 1)) MB"])
        }
        rows.append(["load", "\(fixed(loading, 3)) s"])
        if let encoding, let speed {
            rows.append([
                "encode",
                "\(fixed(speed, 1)) MB/s, \(fixed(Double(bench.tokens) / 1e6 / encoding, 2)) M tokens/s, "
                    + plural(threads.count, "thread"),
            ])
        }
        print(table(rows, leftColumns: 2))
    }
}

/// What `apus bench tokenizer` times.
private final class TokenizerTasks {
    /// What encodes.
    let vocabulary: any Vocabulary
    /// Tokens of all texts, once they were encoded.
    private(set) var tokens = 0
    private let options: BenchTokenizer
    private let pool: ThreadPool
    private let texts: [[UInt8]]
    /// The text of a trained tokenizer's file.
    private let trained: [UInt8]?

    /// Bytes of all texts.
    var bytes: Int { texts.reduce(0) { $0 + $1.count } }

    init(_ options: BenchTokenizer) throws {
        self.options = options
        pool = ThreadPool(threadCount: options.threads.count)
        texts = try options.texts.map(readBytes)
        if let file = options.tokenizer {
            vocabulary = try NamedVocabulary.open(file).vocabulary
            trained = nil
        } else {
            let trainer = BPETrainer(vocabularySize: options.vocab ?? 257)
            let tokenizer = try trainer.train(files: options.texts, pool: pool)
            vocabulary = tokenizer
            trained = tokenizer.json
        }
    }

    /// Seconds of training on the texts' files.
    func train() throws -> Double {
        let trainer = BPETrainer(vocabularySize: options.vocab ?? 8192)
        return try timed { try trainer.train(files: options.texts, pool: pool) }.seconds
    }

    /// Seconds of reading the tokenizer's file.
    func load() throws -> Double {
        try timed {
            if let file = options.tokenizer {
                _ = try NamedVocabulary.open(file)
            } else if let trained {
                _ = try Tokenizer(json: trained)
            }
        }.seconds
    }

    /// Seconds of encoding all texts, and their ids.
    func encode() throws -> (seconds: Double, ids: [[Int32]]) {
        let (seconds, ids) = timed {
            guard let tokenizer = vocabulary as? Tokenizer else { return texts.map { vocabulary.encode($0) } }
            return tokenizer.encodeBatch(texts, pool: pool)
        }
        tokens = ids.reduce(0) { $0 + $1.count }
        return (seconds, ids)
    }

    /// One task for each line of standard input, in turn with another program.
    func answer() throws {
        print("ready")
        flushOutput()
        while let line = readLine() {
            var fields: [(String, JSONText)] = [("version", .string(ApusCommand.configuration.version))]
            switch line {
            case "train": fields.append(("seconds", .number(try train())))
            case "load": fields.append(("seconds", .number(try load())))
            default:
                let (seconds, ids) = try encode()
                fields += [
                    ("seconds", .number(seconds)), ("tokens", .integer(tokens)),
                    ("checksum", .string(TokenizerTasks.checksum(ids))),
                ]
            }
            print(JSONText.object(fields))
            flushOutput()
        }
    }

    /// FNV-1a of each text's first and last thousand ids, four bytes each.
    private static func checksum(_ texts: [[Int32]]) -> String {
        var value: UInt64 = 0xcbf2_9ce4_8422_2325
        for ids in texts {
            for id in Array(ids.prefix(1000)) + Array(ids.suffix(1000)) {
                for byte in 0..<4 {
                    value = (value ^ UInt64(truncatingIfNeeded: id >> (8 * byte)) & 0xff) &* 0x100_0000_01b3
                }
            }
        }
        return String(value, radix: 16)
    }
}
