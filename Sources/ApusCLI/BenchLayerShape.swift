import ApusExperts
import ApusKernels
import ArgumentParser
import Glibc

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token, R routed rows.

/// How popular experts are.
enum ExpertPopularity: String, ExpressibleByArgument, CaseIterable {
    case balanced, zipf, half
}

/// The sizes of a layer to measure.
struct LayerShape {
    let tokens: Int
    let width: Int
    let expertWidth: Int
    let experts: Int
    let choices: Int
    let activation: Activation
    let popularity: ExpertPopularity
    let blockSize: Int

    /// R where nothing is dropped.
    var rows: Int { tokens * choices }

    /// Rows of each expert as the popularity has it, in an order that is neither rising nor falling: even; by Zipf's law;
    /// or a row of half of the tokens for one expert and the rest shared evenly.
    func loads() -> [Int] {
        if popularity == .half, experts > 1 {
            let rest = LayerShape.cut(rows - tokens / 2, by: Array(repeating: 1, count: experts - 1))
            return [tokens / 2] + rest
        }
        return LayerShape.cut(rows, by: LayerShape.shares(experts, areEven: popularity != .zipf))
    }

    /// Shares of experts: all alike, or 1, 1/2, 1/3 ... in a mixed order.
    static func shares(_ experts: Int, areEven: Bool) -> [Double] {
        // 7919 is prime: every rank comes once.
        (0..<experts).map { areEven ? 1 : 1 / Double(1 + $0 * 7919 % experts) }
    }

    /// `rows` whole rows in these shares.
    static func cut(_ rows: Int, by shares: [Double]) -> [Int] {
        let whole = shares.reduce(0, +)
        var sum = 0.0
        let bounds = shares.map { share in
            sum += share
            return Int((sum / whole * Double(rows)).rounded())
        }
        return zip([0] + bounds, bounds).map { $1 - $0 }
    }
}

/// The options that give a layer's sizes: a shape with a name, and any of its sizes by itself.
struct LayerShapeOptions: ParsableArguments {
    /// Layers of published models, which other implementations are measured on too.
    enum Name: String, ExpressibleByArgument, CaseIterable {
        case olmoe, mixtral
        case qwen3 = "qwen3-30b"
        case megaBlocksMedium = "megablocks-medium"
        case fineGrained = "fine-grained"

        /// T, D, F, E, K.
        var sizes: [Int] {
            switch self {
            case .olmoe: [32_768, 2048, 1024, 64, 8]
            case .mixtral: [16_384, 4096, 14_336, 8, 2]
            case .qwen3: [32_768, 2048, 768, 128, 8]
            case .megaBlocksMedium: [32_768, 1024, 4096, 64, 1]
            case .fineGrained: [24_576, 1536, 256, 128, 8]
            }
        }
    }

    @Option(help: "The layer of a published model; sizes that are given too replace its own.")
    var shape: Name?
    @Option(help: "T (default: 2048).")
    var tokens: Int?
    @Option(help: "D (default: 256).")
    var width: Int?
    @Option(help: "F (default: 512).")
    var expertWidth: Int?
    @Option(help: "E (default: 8).")
    var experts: Int?
    @Option(help: "K (default: 2).")
    var choices: Int?
    @Option(help: "swiglu, gelu, gelu-tanh or relu.")
    var activation = "swiglu"
    @Option(help: "balanced, zipf, or half: half of the tokens on one expert.")
    var routing = ExpertPopularity.balanced
    @Option(help: "Rows and columns of a block of block-sparse products.")
    var blockSize = 128

    /// The sizes asked for.
    var value: LayerShape {
        let named = shape?.sizes ?? [2048, 256, 512, 8, 2]
        return LayerShape(
            tokens: tokens ?? named[0], width: width ?? named[1], expertWidth: expertWidth ?? named[2],
            experts: experts ?? named[3], choices: choices ?? named[4],
            activation: Activation(rawValue: activation) ?? .swiglu, popularity: routing, blockSize: blockSize)
    }

    func validate() throws {
        let sizes = value
        try requireSizes(
            ("tokens", sizes.tokens), ("width", sizes.width), ("expert-width", sizes.expertWidth),
            ("choices", sizes.choices), ("block-size", blockSize))
        try requireExperts(sizes.experts)
        if sizes.choices > sizes.experts {
            throw ValidationError("--choices is \(sizes.choices), more than the \(sizes.experts) experts there are")
        }
        if Activation(rawValue: activation) == nil {
            throw ValidationError(
                "--activation is '\(activation)'; it must be one of "
                    + Activation.allCases.map(\.rawValue).joined(separator: ", "))
        }
    }

    /// Refuses experts that are no whole blocks.
    func requireBlocks() throws {
        let sizes = value
        if sizes.expertWidth % blockSize != 0 {
            throw ValidationError(
                "--expert-width is \(sizes.expertWidth), no multiple of the block size \(blockSize); give --block-size too"
            )
        }
    }

    /// The sizes in words, and for `--json`.
    var text: String {
        let sizes = value
        return "T \(sizes.tokens), D \(sizes.width), F \(sizes.expertWidth), E \(sizes.experts), K \(sizes.choices), "
            + "\(activation)"
    }

    /// The sizes for `--json`.
    var fields: [(String, JSONText)] {
        let sizes = value
        return [
            ("shape", .optional(shape) { .string($0.rawValue) }), ("tokens", .integer(sizes.tokens)),
            ("width", .integer(sizes.width)), ("expert_width", .integer(sizes.expertWidth)),
            ("experts", .integer(sizes.experts)), ("choices", .integer(sizes.choices)),
            ("activation", .string(activation)), ("routing", .string(routing.rawValue)),
        ]
    }
}
