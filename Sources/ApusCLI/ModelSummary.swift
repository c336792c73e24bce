import ApusExperts
import ApusKernels
import ApusModels
import ApusTensor
import ApusTraining
import Glibc

/// What `apus inspect` says of a checkpoint.
struct ModelSummary {
    private let source: Checkpoint
    private let files: ShardedSafetensors
    private let state: TrainingState?
    private let isVerified: Bool
    private let counts: ParameterCounts
    private let flops: TokenFLOPs
    /// Tokens of the sequences that the figure of FLOPs is for.
    private let sequence: Int

    init(_ source: Checkpoint, _ files: ShardedSafetensors, _ state: TrainingState?, isVerified: Bool) {
        self.source = source
        self.files = files
        self.state = state
        self.isVerified = isVerified
        let configuration = source.configuration
        counts = configuration.parameterCounts()
        sequence = min(configuration.maximumPositions, 2048)
        flops = configuration.flopsPerToken(meanContext: configuration.meanContext(sequence: sequence))
    }

    private var model: ModelConfiguration { source.configuration }
    /// Where text becomes tokens: the tokenizer's file, or bytes.
    private var vocabulary: String? {
        ModelText.name(in: source)?.split(separator: "/").last.map(String.init)
    }
    private var bytes: Int { files.shards.reduce(0) { $0 + fileSize($1.path) } }
    private var types: [String] { Set(files.shards.flatMap { $0.entries.map(\.stored.rawValue) }).sorted() }

    /// Aligned lines for people.
    var text: String {
        var rows = [
            ["folder", source.folder], ["kind", source.kind],
            input,
            ["width", "\(model.width)"], ["layers", "\(model.layers)"],
            ["attention", attention],
            ["context", "\(model.maximumPositions)"],
            [
                "norm",
                model.norm.rawValue
                    + (model.queryKeyNorm == .none ? "" : ", queries and keys per \(model.queryKeyNorm.rawValue)"),
            ],
        ]
        if let convolution { rows.append(["convolution", convolution]) }
        rows += feedForward.map { ["feed-forward", $0] }
        rows += [
            ["parameters", "\(grouped(counts.total)), \(grouped(counts.active)) active for a token"],
            ["FLOPs per token", "\(fixed(flops.forward / 1e6, 2)) M forward, in a sequence of \(sequence)"],
            [
                "weights on disk",
                "\(formatBytes(bytes)) in \(files.shards.count) \(files.shards.count == 1 ? "file" : "files"), \(types.joined(separator: " and "))",
            ],
        ]
        if let state {
            let settings = state.settings.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
            rows.append(["run", (["step \(state.step)"] + settings).joined(separator: ", ")])
        }
        if isVerified { rows.append(["checksums", "all files are as they were written"]) }
        return table(rows, leftColumns: 2)
    }

    /// What it reads.
    private var input: [String] {
        guard let patches = model.patches else {
            return ["vocabulary", "\(model.vocabulary)" + (vocabulary.map { " (\($0))" } ?? "")]
        }
        let image = "\(patches.height) x \(patches.width) x \(patches.channels)"
        return ["images", "\(image), patches of \(patches.size) x \(patches.size), \(model.vocabulary) classes"]
    }

    /// Which layers convolve in place of attention.
    private var convolution: String? {
        guard let convolution = model.convolution else { return nil }
        let layers = convolution.layers.map(String.init).joined(separator: ", ")
        return "\(convolution.width) tokens wide in layers \(layers), which have no attention"
    }

    private var attention: String {
        guard let latent = model.latent else {
            return "\(model.heads) heads of \(model.headWidth), \(model.keyValueHeads) for keys and values"
        }
        let queries = latent.queryRank.map { ", queries from \($0)" } ?? ""
        return "\(model.heads) heads of \(latent.plainWidth) + \(latent.rotaryWidth) rotary, values of "
            + "\(latent.valueWidth), keys and values from \(latent.keyValueRank) for a token\(queries)"
    }

    /// One line for each run of equal layers.
    private var feedForward: [String] {
        var runs: [(range: Range<Int>, text: String)] = []
        for (layer, part) in model.feedForward.enumerated() {
            let text = describe(part)
            if let last = runs.last, last.text == text {
                runs[runs.count - 1].range = last.range.lowerBound..<layer + 1
            } else {
                runs.append((layer..<layer + 1, text))
            }
        }
        return runs.map { run in
            let layers =
                run.range.count == 1
                ? "layer \(run.range.lowerBound)" : "layers \(run.range.lowerBound) to \(run.range.upperBound - 1)"
            return "\(layers): \(run.text)"
        }
    }

    private func describe(_ part: ModelConfiguration.FeedForward) -> String {
        switch part {
        case .dense(let width): return "dense, \(model.activation.rawValue), \(width) wide"
        case .moe(let moe):
            var text =
                "\(moe.experts) experts, \(moe.choices) for a token, \(moe.activation.rawValue), \(moe.width) wide"
            text += moe.policy == .dropless ? ", dropless" : ", held to a capacity"
            if moe.sharedWidth > 0 { text += ", shared expert \(moe.sharedWidth) wide" }
            if moe.sharedCombination != .sum { text += ", added by a learned \(moe.sharedCombination.rawValue)" }
            if let shortcut = moe.shortcut { text += ", \(shortcut.words)" }
            if moe.isResidual { text += ", residual expert" }
            if let owner = moe.parametersOf { text += ", those of layer \(owner)" }
            return text
        }
    }

    /// For `--json`.
    func object(listsTensors: Bool) -> JSONText {
        var fields: [(String, JSONText)] = [
            ("folder", .string(source.folder)),
            ("kind", .string(source.model.configuration.family?.rawValue ?? ModelConfiguration.modelType)),
            ("vocabulary", .integer(model.vocabulary)), ("patch_size", .optional(model.patches) { .integer($0.size) }),
            ("tokenizer", .optional(vocabulary) { .string($0) }),
            ("width", .integer(model.width)),
            ("layers", .integer(model.layers)), ("heads", .integer(model.heads)),
            ("key_value_heads", .integer(model.keyValueHeads)), ("head_width", .integer(model.headWidth)),
            ("maximum_positions", .integer(model.maximumPositions)),
            ("convolution_layers", .array((model.convolution?.layers ?? []).map { .integer($0) })),
            (
                "moe_layers",
                .array(model.feedForward.indices.filter { model.moe(layer: $0) != nil }.map { .integer($0) })
            ),
            ("parameters", .integer(counts.total)), ("active_parameters", .integer(counts.active)),
            ("expert_parameters", .integer(counts.experts)), ("flops_per_token", .number(flops.forward)),
            ("flops_sequence", .integer(sequence)), ("bytes", .integer(bytes)),
            ("dtypes", .array(types.map { .string($0) })),
            ("step", .optional(state) { .integer($0.step) }),
            (
                "settings",
                .optional(state) { state in
                    .object(state.settings.sorted { $0.key < $1.key }.map { ($0.key, JSONText.string($0.value)) })
                }
            ),
            ("verified", .bool(isVerified)),
        ]
        if listsTensors {
            let list = files.shards.flatMap(\.entries).map { entry in
                JSONText.object([
                    ("name", .string(entry.name)), ("dtype", .string(entry.stored.rawValue)),
                    ("shape", .array(entry.shape.map { .integer($0) })),
                ])
            }
            fields.append(("tensors", .array(list)))
        }
        return .object(fields)
    }

    private func fileSize(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }
}
