import ApusExperts
import ApusModels
import ArgumentParser

/// `apus upcycle`: a mixture of experts out of a dense model.
struct Upcycle: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a mixture of experts of a dense model.",
        discussion: """
            In the chosen layers every expert begins as a copy of the dense part, beside a fresh router (sparse upcycling). Without \
            noise and with renormalised weights the new model computes what the dense one does, and training goes on from \
            there: recipe.yaml in the new folder is the dense run's for the new model, with training.start.

            Example:
              apus train Recipes/quickstart-dense.yaml --out runs/dense
              apus upcycle runs/dense --experts 8 --out models/start
              apus train models/start/recipe.yaml --set training.steps=1000 --out runs/moe
            """)

    @Argument(help: "The dense model: a checkpoint or a run.")
    var checkpoint: String

    @Option(help: "Experts of each new mixture.")
    var experts: Int

    @Option(name: .customLong("top-k"), help: "Experts that each token goes through.")
    var choices = 2

    @Option(
        help:
            "Which layers become mixtures: every-other (the second of each two), last-half, all, or a list such as 1,3."
    )
    var layers = LayerChoice(value: .everyOther)

    @Option(help: "Deviation of the noise on each expert's copy, relative to the matrix's root mean square.")
    var noise: Float = 0

    @Option(help: "Keys the routers' first weights and the noise.")
    var seed: UInt64 = 0

    @Option(help: "How experts are chosen: softmax-top-k, top-k-softmax or sigmoid.")
    var scoring = ScoringChoice(value: .softmaxThenTopK)

    @Flag(
        inversion: .prefixedNo,
        help: "Whether a token's weights are divided by their sum; without, the new model computes something else.")
    var renormalize = true

    @Option(help: "Limit an expert to this multiple of its even share, in training (default: dropless).")
    var capacity: Float?

    @Option(help: "Coefficient of the balance loss.")
    var balance: Float = 0.01

    @Option(help: "Coefficient of the routers' z-loss.")
    var zLoss: Float = 0

    @OptionGroup var threads: ThreadOptions

    @OptionGroup var output: SurgeryOptions

    func run() throws {
        try output.requireFree()
        let source = try Checkpoint(checkpoint)
        let upcycling = Upcycling(
            experts: experts, choices: choices, layers: layers.value, noise: noise, seed: seed,
            router: RouterConfiguration(scoring: scoring.value, renormalizes: renormalize),
            policy: capacity.map { .capacity(factor: $0, minimum: 4, order: .position) } ?? .dropless,
            losses: RouterLosses(balance: balance, z: zLoss))
        let surgery = try upcycling.surgery(of: source.model)
        try output.write(surgery, of: source, threads: threads.count)
        if choices == 1, renormalize {
            writeError(
                "note: with --top-k 1 renormalised weights are always 1, and only the routers' own losses train them; "
                    + "--no-renormalize trains them with the model, which then begins elsewhere than the dense one")
        }
    }
}

/// `--layers` of `apus upcycle`.
struct LayerChoice: ExpressibleByArgument, CustomStringConvertible {
    let value: Upcycling.Layers

    init(value: Upcycling.Layers) { self.value = value }

    init?(argument: String) {
        switch argument {
        case "every-other": value = .everyOther
        case "last-half": value = .lastHalf
        case "all": value = .all
        default:
            let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
            let layers = parts.compactMap { Int($0) }
            guard layers.count == parts.count, layers.allSatisfy({ $0 >= 0 }), Set(layers).count == layers.count else {
                return nil
            }
            value = .listed(layers)
        }
    }

    /// As it is given.
    var description: String {
        switch value {
        case .everyOther: "every-other"
        case .lastHalf: "last-half"
        case .all: "all"
        case .listed(let layers): layers.map(String.init).joined(separator: ",")
        }
    }

    var defaultValueDescription: String { description }
}

/// `--scoring` of `apus upcycle`.
struct ScoringChoice: ExpressibleByArgument {
    let value: RouterConfiguration.Scoring

    init(value: RouterConfiguration.Scoring) { self.value = value }

    init?(argument: String) {
        guard let value = RouterConfiguration.Scoring(rawValue: argument) else { return nil }
        self.value = value
    }

    var defaultValueDescription: String { value.rawValue }
    static var allValueStrings: [String] { RouterConfiguration.Scoring.allCases.map(\.rawValue) }
}
