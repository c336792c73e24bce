import ApusData
import ApusInference
import ApusKernels
import ApusModels
import ApusTensor
import ArgumentParser

/// `apus eval`: how well a model predicts text or tokens.
struct Eval: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure how well a model predicts text, or compute its logits.",
        discussion: """
            With --data: perplexity, nats per token, bits per byte and tokens per second over a text file, a folder of \
            text files, or the held-out part of prepared data (all of it if nothing was held out). Text becomes tokens by the \
            tokenizer.json (or tokenizer.model) in the model's folder; a run without one was trained on bytes. With --tokens: the \
            same over lists of token ids, tokenizer or not; --logits writes 'logits.0', 'logits.1', ..., \
            (tokens, vocabulary) f32, one for each list, and takes the loss from them.

            Of a model that classifies images, --data is a file of them, and what is measured are its accuracy and its nats \
            per image.

            Example:
              apus eval runs/quickstart --data book.txt --max-tokens 100000
              apus eval ./OLMoE-1B-7B --tokens ids.json --logits logits.safetensors
            """)

    @OptionGroup var options: ModelOptions

    @Option(help: "Text to predict: a file, a folder of files, or prepared data; or a file of images.")
    var data: String?

    @Option(help: "A JSON file with a list of lists of token ids.")
    var tokens: String?

    @Option(help: "Where to write the logits of --tokens, as safetensors.")
    var logits: String?

    @Option(help: "Most tokens of --data to read.")
    var maxTokens: Int?

    @Option(help: "Tokens that the model sees at once (default: its context).")
    var window: Int?

    func validate() throws {
        if (data == nil) == (tokens == nil) { throw ValidationError("give either --data or --tokens") }
        if logits != nil, tokens == nil { throw ValidationError("--logits needs --tokens") }
        if logits != nil, window != nil {
            throw ValidationError("--logits are those of whole lists; leave --window or --logits out")
        }
        if let maxTokens, maxTokens < 2 { throw ValidationError("--max-tokens must be at least 2") }
        if maxTokens != nil, data == nil { throw ValidationError("--max-tokens needs --data") }
    }

    func run() throws {
        let source = try Checkpoint(options.checkpoint)
        if source.configuration.patches != nil { return try classify(source) }
        let backend = try options.compute.backend()
        // Read and checked before the weights, which may take minutes.
        let text = try data.map { try EvaluationText($0, of: source, tokenizer: options.tokenizer) }
        // Lists need no vocabulary; with one, the bytes that they stand for are known.
        let vocabulary =
            data == nil ? try? ModelText(source, named: options.tokenizer)?.vocabulary : text?.vocabulary
        let lists = try tokens.map { try TokenLists(path: $0, vocabulary: source.configuration.vocabulary).lists } ?? []
        let model = try source.model.load(backend: backend, precision: options.precision?.value)
        let evaluator = try Evaluator(model, backend: backend, window: window)
        let (seconds, result) = try timed {
            if let logits {
                try evaluator.writeLogits(of: lists, to: logits, vocabulary: vocabulary)
            } else if let text {
                try evaluator.evaluate(text.tokens, limit: maxTokens, vocabulary: vocabulary)
            } else {
                try evaluator.evaluate(lists, vocabulary: vocabulary)
            }
        }
        report(result, tokensPerSecond: result.map { Double($0.tokens) / seconds })
    }

    /// Loss and accuracy of a model of images.
    private func classify(_ source: Checkpoint) throws {
        guard let data else { throw InferenceError.classifiesImages }
        if let option = [
            maxTokens == nil ? nil : "--max-tokens", window == nil ? nil : "--window",
            options.tokenizer == nil ? nil : "--tokenizer",
        ].lazy.compactMap(\.self).first {
            throw CommandError("\(option) is for text, and '\(source.folder)' classifies images; leave it out")
        }
        let backend = try options.compute.backend()
        let images = try ImageSet(path: data)
        let model = try source.model.load(backend: backend, precision: options.precision?.value)
        let evaluator = try Evaluator(model, backend: backend)
        let (seconds, result) = try timed { try evaluator.evaluate(images) }
        let rate = Double(result.images) / seconds
        if options.json {
            return print(
                JSONText.object([
                    ("images", .integer(result.images)), ("correct", .integer(result.correct)),
                    ("accuracy", .number(result.accuracy)), ("nats_per_image", .number(result.natsPerImage)),
                    ("images_per_second", .number(rate)),
                ]))
        }
        print(
            table([
                ["images", grouped(result.images)], ["accuracy", "\(fixed(result.accuracy * 100, 2)) %"],
                ["nats per image", fixed(result.natsPerImage, 4)], ["images per second", fixed(rate, 0)],
            ]))
    }

    /// Shows what was found; `nil` when there was nothing to predict, and the logits are all there is.
    private func report(_ result: Evaluation?, tokensPerSecond: Double?) {
        if options.json {
            var fields: [(String, JSONText)] = [
                ("tokens", .integer(result?.tokens ?? 0)),
                ("nats_per_token", .optional(result?.natsPerToken) { .number($0) }),
                ("perplexity", .optional(result?.perplexity) { .number($0) }),
                ("bits_per_byte", .optional(result?.bitsPerByte) { .number($0) }),
                ("tokens_per_second", .optional(tokensPerSecond) { .number($0) }),
            ]
            if let logits { fields.append(("logits", .string(logits))) }
            return print(JSONText.object(fields))
        }
        guard let result, let tokensPerSecond else {
            print("No list has two tokens, so there is nothing to predict.")
            if let logits { print(table([["logits", logits]])) }
            return
        }
        var rows = [
            ["predicted tokens", grouped(result.tokens)], ["nats per token", fixed(result.natsPerToken, 4)],
            ["perplexity", fixed(result.perplexity, 3)],
        ]
        if let bits = result.bitsPerByte { rows.append(["bits per byte", fixed(bits, 4)]) }
        rows.append(["tokens per second", fixed(tokensPerSecond, 0)])
        if let logits { rows.append(["logits", logits]) }
        print(table(rows))
    }
}
