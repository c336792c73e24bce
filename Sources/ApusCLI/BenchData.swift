import ApusData
import ApusTensor
import ArgumentParser

// Shape letters: B sequences of a batch, S tokens of a sequence.

/// `apus bench data`: reading the tokens of prepared data as a training run does.
struct BenchData: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "data", abstract: "Measure reading prepared data: sequences in shuffled order, batch by batch.",
        discussion: """
            Data that the system has not read before comes from storage, and later from its memory: the slowest and the \
            fastest round show both.

            Example:
              apus bench data prepared/mix --sequence-length 2048 --document-mask
            """)

    @Argument(help: "A folder that 'apus data prepare' wrote.")
    var path: String

    @Option(help: "Tokens of a sequence.")
    var sequenceLength = 1024

    @Option(help: "Sequences of a batch.")
    var batch = 16

    @Option(help: "Tokens to read in each round.")
    var tokens = 1 << 24

    @Flag(help: "Find the documents in each sequence too.")
    var documentMask = false

    @OptionGroup var repeats: RoundOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        try requireSizes(("sequence-length", sequenceLength), ("batch", batch))
        guard (1...1 << 40).contains(tokens) else {
            throw ValidationError("--tokens is \(tokens); it must be from 1 to \(1 << 40)")
        }
    }

    func run() throws {
        guard ShardSet.isPrepared(path) else {
            throw CommandError("'\(path)' holds no prepared data: give a folder that 'apus data prepare' wrote")
        }
        let corpus = try ShardSet(path: path)
        let stream = try SequenceStream(
            [SequenceStream.Source(path: path, tokens: corpus.training)], sequenceLength: sequenceLength,
            shuffleSeed: 1, masksDocuments: documentMask, part: "training")
        let batches = max(1, tokens / (batch * sequenceLength))
        let speeds = try (0..<(repeats.rounds ?? 5)).map { round in
            let seconds = try timed {
                for index in round * batches..<(round + 1) * batches {
                    _ = try stream.sequences(index * batch..<(index + 1) * batch)
                }
            }.seconds
            return Double(batches * batch * sequenceLength) / seconds
        }
        let (slowest, fastest) = (speeds.min() ?? 0, speeds.max() ?? 0)
        if json {
            let fields: [(String, JSONText)] = [
                ("bench", .string("data")), ("sequence_length", .integer(sequenceLength)),
                ("batch", .integer(batch)), ("document_mask", .bool(documentMask)),
                ("corpus_tokens", .integer(corpus.training.count)), ("tokens_per_second", .number(median(speeds))),
                ("slowest_tokens_per_second", .number(slowest)), ("fastest_tokens_per_second", .number(fastest)),
                ("peak_resident_bytes", .integer(peakResidentBytes())),
            ]
            return print(JSONText.object(fields))
        }
        print(
            table(
                [
                    ["corpus", "\(plural(corpus.training.count, "token"))"],
                    ["batches", "\(batch) sequences of \(sequenceLength)" + (documentMask ? ", documents found" : "")],
                    [
                        "reading",
                        "\(fixed(median(speeds) / 1e6, 1)) M tokens/s, \(fixed(slowest / 1e6, 1)) to "
                            + fixed(fastest / 1e6, 1),
                    ], ["memory", "\(formatBytes(peakResidentBytes())) resident at most"],
                ], leftColumns: 2))
    }
}
