import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

// Shape letters: T tokens, D model width, E experts, K choices per token, R routed rows.

/// `apus bench routing`: from tokens to rows sorted by expert, and back.
struct BenchRouting: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "routing", abstract: "Measure routing: from tokens to the experts' rows and back.",
        discussion: """
            Forward only, without the experts: the router (logits, scores, choice, weights, and the order of the rows), the \
            rows themselves, gathered by expert, and their weighted sum by token. A layer gathers no rows where its \
            products pick them; here they are, so that the same work is done as by implementations that multiply with \
            one-hot masks (Benchmarks/peers/one_hot_routing.py).

            Example:
              apus bench routing --tokens 4096 --width 2048 --experts 64 --choices 2 --precision bf16 --device cuda
            """)

    @OptionGroup var layer: LayerShapeOptions
    @OptionGroup var repeats: RoundOptions
    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.cpu
    @OptionGroup var options: BenchOptions

    func run() throws {
        let backend = try options.backend(on: device)
        let bench = try RoutingBench(layer.value, options.precision.value, backend)
        let decision = try bench.route()
        let works = [
            TimedWork(backend: backend) { _ = try bench.route() },
            TimedWork(backend: backend) { try bench.gather(decision) },
            TimedWork(backend: backend) { try bench.combine(decision) },
            TimedWork(backend: backend) {
                let decision = try bench.route()
                try bench.gather(decision)
                try bench.combine(decision)
            },
        ]
        let seconds = try timeInTurn(works, rounds: repeats.rounds ?? 30, warmup: 3).map(median)
        let names = ["route", "gather", "combine", "all"]
        let fields = zip(names, seconds).map { ("\($0)_seconds", JSONText.number($1)) }
        options.report("routing", layer.fields + [("device", .string(device.rawValue))] + fields) {
            let lines = zip(names, seconds).map { [$0, fixed($1 * 1e6, 1)] }
            return """
                \(layer.text), \(options.precision.rawValue), \(options.place(device)), routing \(layer.routing.rawValue)
                \(table([["part", "us"]] + lines))
                """
        }
    }
}

/// A router and its tokens.
private struct RoutingBench {
    private let backend: any Backend
    private let router: TopKRouter
    private let layout: TokenLayout
    private let x: Tensor
    private let rows: Tensor
    private let choices: Int

    init(_ shape: LayerShape, _ precision: Precision, _ backend: any Backend) throws {
        self.backend = backend
        choices = shape.choices
        (x, layout) = try MoELayerBench.tokens(shape, precision.modelType, backend)
        rows = try backend.empty(Shape(shape.rows, shape.width), x.dtype, .workspace)
        let weight = MoELayerBench.gate(shape)
        let store = try ParameterStore([weight], backend: backend, precision: precision, isTrained: false)
        try store.initialize(seed: 1, backend: backend)
        try MoELayerBench.favour(weight, shape, backend)
        router = TopKRouter(
            weight: weight, selectionBias: nil, choices: shape.choices,
            configuration: RouterConfiguration(renormalizes: true), policy: .dropless, isPadded: false,
            losses: RouterLosses())
    }

    func route() throws -> Routing {
        let tape = Tape(backend: backend, isRecording: false)
        return try router.route(
            tape.leaf(x), layer: 0, MoEContext(forward: ForwardContext(tape: tape, layout: layout)))
    }

    func gather(_ routing: Routing) throws {
        try backend.gatherRows(x, index: routing.decision.permutation.rowToToken, scale: nil, into: rows)
    }

    func combine(_ routing: Routing) throws {
        let tape = Tape(backend: backend, isRecording: false)
        _ = try LocalDispatcher().combine(
            tape.leaf(rows), weights: routing.weights, routing.decision, base: nil, on: tape
        ).finish()
    }
}
