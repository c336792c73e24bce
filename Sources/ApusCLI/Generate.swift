import ApusData
import ApusInference
import ApusKernels
import ApusModels
import ApusTensor
import ArgumentParser

/// `apus generate`: continue prompts.
struct Generate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Continue prompts.",
        discussion: """
            Prompts of different lengths run in one batch. Without --temperature the most probable token is always taken; \
            with it, the same seed gives the same text. A Hugging Face folder's generation_config.json sets other \
            defaults (do_sample, temperature, top_k, top_p) and the ids that end a text (eos_token_id); otherwise the end of \
            a document does.

            Text becomes tokens by the tokenizer.json (or tokenizer.model) in the model's folder, special tokens in a prompt \
            included, as in Hugging Face's library; a run without one was trained on bytes.

            Example:
              apus generate runs/quickstart --prompt 'In the beginning ' --max-tokens 200 --temperature 0.8 --top-k 40
              apus generate ./OLMoE-1B-7B --prompt 'The swift is' --max-tokens 20 --stream
              apus generate ./OLMoE-1B-7B --prompt-tokens '50279 510 5347' --max-tokens 20
            """)

    @OptionGroup var options: ModelOptions

    @Option(name: .long, help: "Text to continue. May be given several times.")
    var prompt: [String] = []

    @Option(help: "A file with the text to continue; - for standard input.")
    var promptFile: String?

    @Option(name: .long, help: "Token ids to continue, '1 2 3'; ids are printed. May be given several times.")
    var promptTokens: [String] = []

    @Option(help: "Most tokens to generate for each prompt.")
    var maxTokens = 256

    @Option(help: "Divides the logits before a token is drawn; 0 (the default) always takes the most probable one.")
    var temperature: Float?

    @Option(help: "Draw from the K most probable tokens only; 0 (the default) for all.")
    var topK: Int?

    @Option(help: "Draw from the most probable tokens whose probabilities first sum to P only (default: 1, all).")
    var topP: Float?

    @Option(help: "Keys the draws.")
    var seed: UInt64 = 0

    @Flag(help: "Print each token as it comes (one prompt only).")
    var stream = false

    @Flag(help: "Make each text independent of the other prompts, bit for bit; slower.")
    var batchInvariant = false

    func validate() throws {
        if prompt.isEmpty, promptFile == nil, promptTokens.isEmpty {
            throw ValidationError("give --prompt, --prompt-file or --prompt-tokens")
        }
        if !promptTokens.isEmpty, !prompt.isEmpty || promptFile != nil {
            throw ValidationError("--prompt-tokens cannot be mixed with text prompts")
        }
        if stream, prompt.count + promptTokens.count + (promptFile == nil ? 0 : 1) > 1 {
            throw ValidationError("--stream prints one prompt's text; give one prompt, or leave --stream out")
        }
        if stream, options.json { throw ValidationError("--stream and --json exclude each other") }
    }

    func run() throws {
        let source = try Checkpoint(options.checkpoint)
        guard source.configuration.patches == nil else { throw InferenceError.classifiesImages }
        let backend = try options.compute.backend(batchInvariant: batchInvariant)
        let text =
            promptTokens.isEmpty
            ? try ModelText.require(source, named: options.tokenizer, instead: "--prompt-tokens") : nil
        let prompts = try prompts(text)
        let generation = try generationOptions(source, text)
        for (index, prompt) in prompts.enumerated() where prompt.isEmpty {
            throw InferenceError.emptyPrompt(prompt: index)
        }
        let model = try source.model.load(backend: backend, precision: options.precision?.value)
        let generator = try Generator(model, backend: backend, options: generation)

        var printer = TokenPrinter(vocabulary: text?.vocabulary)
        if stream { printer.show(prompts[0]) }
        let (seconds, results) = try timed {
            try generator.generate(prompts) { token in if stream { printer.show([token.id]) } }
        }
        if stream { printer.finish() }
        let count = results.reduce(0) { $0 + $1.tokens.count }
        if options.json {
            print(object(prompts, results, text, tokensPerSecond: Double(count) / seconds))
        } else {
            if !stream { show(prompts, results, text) }
            writeError("\(count) tokens in \(fixed(seconds, 2)) s, \(fixed(Double(count) / seconds, 1)) tokens/s")
        }
    }

    private func generationOptions(_ source: Checkpoint, _ text: ModelText?) throws -> GenerationOptions {
        let defaults = try GenerationDefaults(folder: source.folder, vocabulary: source.configuration.vocabulary)
        // Ids end as text does, and need no tokenizer for it where there is none that can be read.
        let vocabulary = try? (text ?? ModelText(source, named: options.tokenizer))?.vocabulary
        let generation = GenerationOptions(
            maximumTokens: maxTokens, ends: Set(source.ends(defaults, vocabulary)), start: nil,
            sampling: SamplingOptions(defaults, temperature: temperature, topK: topK, topP: topP, seed: seed))
        try generation.validate()
        return generation
    }

    private func prompts(_ text: ModelText?) throws -> [[Int32]] {
        guard let text else { return try promptTokens.enumerated().map { try ids($1, prompt: $0) } }
        let texts = prompt.map { Array($0.utf8) } + (try promptFile.map { [try readBytes($0)] } ?? [])
        return texts.map(text.prompt)
    }

    private func ids(_ text: String, prompt: Int) throws -> [Int32] {
        try text.split { $0 == " " || $0 == "," }.enumerated().map { place, word in
            guard let id = Int32(word), id >= 0 else {
                throw CommandError(
                    "--prompt-tokens: '\(word)' at position \(place) of prompt \(prompt) is no token id; "
                        + "give whole numbers from 0, separated by spaces")
            }
            return id
        }
    }

    private func show(_ prompts: [[Int32]], _ results: [Generation], _ text: ModelText?) {
        for (index, (prompt, result)) in zip(prompts, results).enumerated() {
            if index > 0 { print() }
            var printer = TokenPrinter(vocabulary: text?.vocabulary)
            printer.show(prompt + result.tokens)
            printer.finish()
        }
    }

    private func object(
        _ prompts: [[Int32]], _ results: [Generation], _ text: ModelText?, tokensPerSecond: Double
    ) -> JSONText {
        let items = zip(prompts, results).map { prompt, result in
            var fields: [(String, JSONText)] = [
                ("prompt_tokens", .array(prompt.map { .integer(Int($0)) })),
                ("tokens", .array(result.tokens.map { .integer(Int($0)) })),
                ("finish", .string(result.finish.rawValue)),
            ]
            if let text {
                fields.append(("prompt", .string(text.vocabulary.text(of: prompt))))
                fields.append(("text", .string(text.continuation(result.tokens))))
            }
            return JSONText.object(fields)
        }
        return .object([("generations", .array(items)), ("tokens_per_second", .number(tokensPerSecond))])
    }
}

/// Prints tokens as text, never half a character; as ids when there is no vocabulary.
private struct TokenPrinter {
    let vocabulary: (any Vocabulary)?
    private var decoder = StreamingDecoder()
    private var isFirst = true

    init(vocabulary: (any Vocabulary)?) { self.vocabulary = vocabulary }

    mutating func show(_ tokens: [Int32]) {
        if let vocabulary {
            print(tokens.map { decoder.append($0, of: vocabulary) }.joined(), terminator: "")
        } else {
            print((isFirst ? "" : " ") + tokens.map(String.init).joined(separator: " "), terminator: "")
        }
        isFirst = false
        flushOutput()
    }

    mutating func finish() { print(vocabulary == nil ? "" : decoder.finish()) }
}
