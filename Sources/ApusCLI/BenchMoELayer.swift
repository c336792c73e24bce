import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser
import Glibc

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// `apus bench moe-layer`: one layer, forward and backward.
struct BenchMoELayer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "moe-layer", abstract: "Measure a mixture-of-experts layer, forward and backward.",
        discussion: """
            The router is part of what is timed. With --routing zipf the most popular expert gets about E times the tokens \
            of the least popular one; the loads that came out are printed.

            Example:
              apus bench moe-layer --tokens 2048 --width 256 --expert-width 512 --experts 8 --choices 2
            """)

    /// How popular experts are.
    enum Popularity: String, ExpressibleByArgument, CaseIterable {
        case balanced, zipf
    }

    @Option(help: "T.")
    var tokens = 2048
    @Option(help: "D.")
    var width = 256
    @Option(help: "F.")
    var expertWidth = 512
    @Option(help: "E.")
    var experts = 8
    @Option(help: "K.")
    var choices = 2
    @Option(help: "swiglu, gelu, gelu-tanh or relu.")
    var activation = "swiglu"
    @Option(help: "balanced or zipf.")
    var routing = Popularity.balanced
    @OptionGroup var repeats: RoundOptions
    @OptionGroup var options: BenchOptions

    func validate() throws {
        try requireSizes(
            ("tokens", tokens), ("width", width), ("expert-width", expertWidth), ("experts", experts),
            ("choices", choices))
        if experts > MoEConfiguration.mostExperts {
            throw ValidationError("--experts is \(experts); a layer has at most \(MoEConfiguration.mostExperts)")
        }
        if choices > experts {
            throw ValidationError("--choices is \(choices), more than the \(experts) experts there are")
        }
        if Activation(rawValue: activation) == nil {
            throw ValidationError(
                "--activation is '\(activation)'; it must be one of "
                    + Activation.allCases.map(\.rawValue).joined(separator: ", "))
        }
    }

    func run() throws {
        let backend = options.backend()
        let activation = Activation(rawValue: activation) ?? .swiglu
        let (layer, store) = try makeLayer(activation, backend)
        try store.initialize(seed: 1, backend: backend)
        try skew(layer, store, backend)
        let dtype = options.precision.value.modelType
        let x = try input(dtype, backend)
        let dy = try backend.empty(x.shape, dtype, .activations)
        try backend.fillRandom(
            dy, .normal(mean: 0, deviation: 1), stream: RandomStream(seed: 3, purpose: .initialization), first: 0)

        var (forward, backward) = ([Double](), [Double]())
        var rows: [Int32] = []
        var systemAllocations = 0
        for round in -2..<(repeats.rounds ?? 9) {
            if round == 0 { systemAllocations = backend.allocator.statistics.systemAllocations }
            let tape = Tape(backend: backend)
            let layout = try TokenLayout.sequences([tokens], allocator: backend.allocator)
            let context = MoEContext(forward: ForwardContext(tape: tape, layout: layout))
            let (ahead, output) = try timed { try layer(tape.leaf(x), context) }
            rows = output.routing.decision.permutation.counts.array(of: Int32.self)
            try tape.addRoot(output.hidden, seed: dy)
            let back = try timed { try tape.backward() }.seconds
            if round >= 0 {
                forward.append(ahead)
                backward.append(back)
            }
        }
        systemAllocations = backend.allocator.statistics.systemAllocations - systemAllocations
        report(backend, activation, forward: median(forward), backward: median(backward), rows, systemAllocations)
    }

    private func makeLayer(_ activation: Activation, _ backend: CPUBackend) throws -> (MoELayer, ParameterStore) {
        let router = Parameter(
            "gate", Shape(experts, width), role: .router,
            initializer: .normal(deviation: 1.28 / Float(width).squareRoot()))
        let spread = Initializer.normal(deviation: 0.02)
        var inputs: [Parameter] = []
        for expert in 0..<experts {
            for part in 0..<activation.inputsPerOutput {
                inputs.append(
                    Parameter("in.\(expert).\(part)", Shape(expertWidth, width), role: .expert, initializer: spread))
            }
        }
        let outputs = (0..<experts).map {
            Parameter("out.\($0)", Shape(width, expertWidth), role: .expert, initializer: spread)
        }
        let store = try ParameterStore(
            [router] + inputs + outputs, backend: backend, precision: options.precision.value, isTrained: true)
        let layer = MoELayer(
            layer: 0,
            router: TopKRouter(
                weight: router, selectionBias: nil, choices: choices,
                configuration: RouterConfiguration(renormalizes: true), policy: .dropless, isPadded: false,
                losses: RouterLosses()),
            bank: GroupedBank(inputs: inputs, outputs: outputs, activation: activation))
        return (layer, store)
    }

    /// (T, D) of random numbers, the last column 1: the router's weight there is a bias that every token feels.
    private func input(_ dtype: DType, _ backend: CPUBackend) throws -> Tensor {
        let values = try backend.empty(Shape(tokens, width), .f32, .activations)
        try backend.fillRandom(
            values, .normal(mean: 0, deviation: 1), stream: RandomStream(seed: 2, purpose: .initialization), first: 0)
        for token in 0..<tokens { values.pointer(to: Float.self)[(token + 1) * width - 1] = 1 }
        guard dtype != .f32 else { return values }
        let halves = try backend.empty(values.shape, dtype, .activations)
        try backend.convert(values, into: halves)
        return halves
    }

    /// Expert e is favoured by `-log(e + 1)`: what top-k picks then falls about as Zipf's law says.
    private func skew(_ layer: MoELayer, _ store: ParameterStore, _ backend: CPUBackend) throws {
        try store.parameters[0].withWeights(on: backend.stream) { weight in
            for expert in 0..<experts {
                weight.pointer(to: Float.self)[(expert + 1) * width - 1] =
                    routing == .zipf ? -Float(log(Double(expert + 1))) : 0
            }
        }
    }

    private func report(
        _ backend: CPUBackend, _ activation: Activation, forward: Double, backward: Double, _ rows: [Int32],
        _ systemAllocations: Int
    ) {
        let products = Double(activation.inputsPerOutput + 1)
        let flops = 2 * Double(tokens) * Double(width) * (Double(choices * expertWidth) * products + Double(experts))
        let speed = 3 * flops / (forward + backward) / 1e9
        let skew = Double(rows.max() ?? 0) * Double(rows.count) / Double(max(rows.reduce(0, +), 1))
        let peak = backend.allocator.statistics.totalPeak
        options.report(
            "moe-layer",
            [
                ("tokens", .integer(tokens)), ("width", .integer(width)), ("expert_width", .integer(expertWidth)),
                ("experts", .integer(experts)), ("choices", .integer(choices)),
                ("activation", .string(activation.rawValue)), ("routing", .string(routing.rawValue)),
                ("forward_seconds", .number(forward)), ("backward_seconds", .number(backward)),
                ("gflops", .number(speed)), ("peak_load_to_mean", .number(skew)),
                ("rows", .array(rows.map { .integer(Int($0)) })), ("peak_bytes", .integer(peak)),
                ("system_allocations", .integer(systemAllocations)),
            ]
        ) {
            table(
                [
                    [
                        "layer",
                        "T \(tokens), D \(width), F \(expertWidth), E \(experts), K \(choices), \(activation.rawValue)",
                    ],
                    [
                        "run",
                        "\(options.precision.rawValue), \(backend.pool.threadCount) threads, routing \(routing.rawValue)",
                    ],
                    ["most loaded expert", "\(fixed(skew, 2)) times the mean"],
                    ["forward", "\(fixed(forward * 1e3, 2)) ms"], ["backward", "\(fixed(backward * 1e3, 2)) ms"],
                    ["both", "\(fixed((forward + backward) * 1e3, 2)) ms, \(fixed(speed, 1)) GFLOP/s"],
                    [
                        "memory",
                        "\(formatBytes(peak)) at most, \(systemAllocations) system allocations in timed passes",
                    ],
                ], leftColumns: 2)
        }
    }
}
