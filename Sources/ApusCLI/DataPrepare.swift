import ApusData
import ApusTensor
import ArgumentParser
import Glibc

/// `apus data prepare`: text files to token shards.
struct DataPrepare: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prepare",
        abstract: "Turn text into token shards, which a recipe's data.path may name.",
        discussion: """
            An INPUT is a text file (one document), a JSONL file (each line an object with a document's text as "text"), \
            either of them as .gz or .zst, a folder of such files with all below it, or - for standard input. Memory does \
            not grow with the text.

            Example:
              apus data prepare books/ web.jsonl.zst --tokenizer bytes --held-out 0.01 --out prepared/mix
              apus train Recipes/quickstart.yaml --set data.path=prepared/mix
            """)

    @Argument(help: "Files, folders, or - for standard input.")
    var inputs: [String]

    @Option(help: "What a token is: bytes, a tokenizer.json, or a SentencePiece .model.")
    var tokenizer: String

    @Option(help: "The folder to write; it must not exist.")
    var out: String

    @Option(help: "A shard ends with the document that brings it to this many tokens.")
    var shardTokens = 1 << 27

    @Option(help: "The share of documents to hold out for evaluation, chosen by their content.")
    var heldOut = 0.0

    @Option(help: "How documents lie in the files: auto (by the files' names), text or jsonl.")
    var format = "auto"

    @OptionGroup var threads: ThreadOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        guard (0..<1).contains(heldOut) else {
            throw ValidationError("--held-out must be a number of at least 0 and below 1")
        }
        guard (1...1 << 47).contains(shardTokens) else {
            throw ValidationError("--shard-tokens must lie in 1 ... \(1 << 47)")
        }
        guard InputFormat(rawValue: format) != nil else {
            throw ValidationError("--format must be auto, text or jsonl")
        }
        if inputs.count(where: { $0 == "-" }) > 1 { throw ValidationError("- can be given once") }
    }

    func run() throws {
        let preparation = Preparation(
            inputs: inputs, format: InputFormat(rawValue: format) ?? .auto,
            vocabulary: try NamedVocabulary.open(tokenizer), heldOut: heldOut, tokensPerShard: shardTokens)
        let pool = ThreadPool(threadCount: threads.count)
        let meter = PreparationMeter(isShown: isatty(STDERR_FILENO) == 1 && !json)
        let (seconds, manifest) = try timed {
            defer { meter.clear() }
            return try preparation.write(to: out, pool: pool) { meter.show($0) }
        }
        let summary = CorpusSummary(out, manifest)
        let bytes = manifest.sources.reduce(0) { $0 + $1.bytes }
        if json {
            print(summary.object(more: [("seconds", .number(seconds))]))
        } else {
            print(summary.text)
            print("\n\(fixed(Double(bytes) / 1e6 / seconds, 1)) MB of text per second")
        }
        let (kept, held) = (manifest.documents(.training), manifest.documents(.heldOut))
        if heldOut > 0, held == 0 {
            writeError("note: of \(plural(kept, "document")) none fell into the held-out part")
        }
        if kept == 0 {
            writeError(
                "warning: of \(plural(held, "document")) all fell into the held-out part, and none is left to train on; "
                    + "lower --held-out")
        }
    }
}

/// A line on the terminal that says how far a preparation has come, at most four times a second.
private final class PreparationMeter {
    private let isShown: Bool
    private let clock = ContinuousClock()
    private var last: ContinuousClock.Instant?

    init(isShown: Bool) { self.isShown = isShown }

    func show(_ progress: Preparation.Progress) {
        guard isShown, last.map({ clock.now - $0 > .milliseconds(250) }) ?? true else { return }
        last = clock.now
        let text = "\(grouped(progress.bytes >> 20)) MiB, \(grouped(progress.documents)) documents"
        PreparationMeter.write("\r\u{1B}[K\(text), \(grouped(progress.tokens)) tokens")
    }

    private static func write(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
    }

    func clear() {
        if last != nil { PreparationMeter.write("\r\u{1B}[K") }
    }
}
