import ApusInference
import ApusKernels
import ApusModels
import ArgumentParser

/// `apus prune`: a model with some of its experts.
struct Prune: ParsableCommand {
    /// What an expert is worth.
    enum Criterion: String, ExpressibleByArgument, CaseIterable {
        case utilization
        case routerNorm = "router-norm"
        case random
    }

    static let configuration = CommandConfiguration(
        abstract: "Keep some of a model's experts.",
        discussion: """
            By utilization the experts stay that the tokens of --data choose most; by router-norm those whose row of the router has \
            changed its norm most since --base; by random any. --keep is for each layer; --keep-fraction is of all experts, \
            wherever the scores are highest, and leaves each layer as many as a token chooses. What stays keeps its order.

            Example:
              apus prune runs/moe --by utilization --data held-out.txt --keep 4 --out models/small
              apus prune runs/tuned --by router-norm --base models/start --keep-fraction 0.5 --out models/half
            """)

    @Argument(help: "A checkpoint, a run, or a Hugging Face folder.")
    var checkpoint: String

    @Option(help: "utilization, router-norm or random.")
    var by: Criterion

    @Option(help: "Experts that stay in each layer.")
    var keep: Int?

    @Option(help: "Share of all experts that stay, above 0 and at most 1.")
    var keepFraction: Double?

    @Option(help: "For utilization: text to choose experts for, a file, a folder of files, or prepared data.")
    var data: String?

    @Option(help: "Most tokens of --data to read.")
    var maxTokens = 65_536

    @Option(help: "For --data: bytes, a tokenizer.json, or a SentencePiece .model (default: the model's own).")
    var tokenizer: String?

    @Option(help: "For router-norm: a checkpoint of the same model before it was trained further.")
    var base: String?

    @Option(help: "For random: keys the draws.")
    var seed: UInt64 = 0

    @OptionGroup var compute: ComputeOptions

    @OptionGroup var output: SurgeryOptions

    func validate() throws {
        if (keep == nil) == (keepFraction == nil) { throw ValidationError("give either --keep or --keep-fraction") }
        if (by == .utilization) != (data != nil) {
            throw ValidationError(
                by == .utilization ? "--by utilization needs --data" : "--data is for --by utilization")
        }
        if (by == .routerNorm) != (base != nil) {
            throw ValidationError(
                by == .routerNorm ? "--by router-norm needs --base" : "--base is for --by router-norm")
        }
        if maxTokens < 2 { throw ValidationError("--max-tokens must be at least 2") }
    }

    func run() throws {
        try output.requireFree()
        let source = try Checkpoint(checkpoint)
        let budget: ExpertBudget = keepFraction.map { .share($0) } ?? .eachLayer(keep ?? 0)
        try Pruning.requirePrunable(source.model, budget)
        let scores = try scores(source)
        let pruning = try Pruning(of: source.model, by: scores, keeping: budget)
        try output.write(
            try pruning.surgery(of: source.model), of: source, threads: compute.threads.count,
            rows: rows(pruning), fields: [("by", .string(by.rawValue)), ("layers", layers(pruning, scores))])
    }

    private func scores(_ source: Checkpoint) throws -> ExpertScores {
        switch by {
        case .random: return ExpertScores(randomOf: source.configuration, seed: seed)
        case .routerNorm:
            let base = try Checkpoint(base ?? "")
            return try ExpertScores(
                routerNormsOf: source.model, since: base.model, backend: CPUBackend(threadCount: 1))
        case .utilization:
            guard source.configuration.patches == nil else {
                throw CommandError(
                    "--by utilization counts choices over text, and '\(source.folder)' classifies images: use router-norm"
                )
            }
            let backend = try compute.backend()
            let text = try EvaluationText(data ?? "", of: source, tokenizer: tokenizer)
            let model = try source.model.load(backend: backend)
            let found = try Evaluator(model, backend: backend).utilization(of: text.tokens, limit: maxTokens)
            return ExpertScores(utilization: found.utilization.choices)
        }
    }

    private func rows(_ pruning: Pruning) -> [[String]] {
        pruning.kept.sorted { $0.key < $1.key }.map { layer, experts in
            ["layer \(layer)", "keeps \(experts.map(String.init).joined(separator: " "))"]
        }
    }

    private func layers(_ pruning: Pruning, _ scores: ExpertScores) -> JSONText {
        .array(
            pruning.kept.sorted { $0.key < $1.key }.map { layer, experts in
                .object([
                    ("layer", .integer(layer)), ("kept", .array(experts.map { .integer($0) })),
                    ("scores", .array((scores.values[layer] ?? []).map { .number($0) })),
                ])
            })
    }
}
