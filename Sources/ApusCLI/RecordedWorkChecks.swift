import ApusExperts
import ApusInference
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// Work that is recorded once and repeated, held to the bits of the same work enqueued op by op.
enum RecordedWorkChecks {
    private static let checks = [("moe layer, recorded", moeLayer), ("generation, recorded", generation)]

    /// What the checks are called.
    static let names = checks.map(\.0)

    /// Runs the checks whose name `isWanted`.
    static func run(on backend: any Backend, where isWanted: (String) -> Bool) throws -> [OpCheck.Outcome] {
        try checks.filter { isWanted($0.0) }.flatMap { name, isEqual in
            try [Precision.f32, .bf16].map { precision in
                OpCheck.Outcome(
                    name: name, dtype: precision.modelType, error: try isEqual(precision, backend) ? 0 : .infinity,
                    tolerance: 0)
            }
        }
    }

    /// A layer's forward and backward, its losses included, on three inputs.
    private static func moeLayer(_ precision: Precision, _ backend: any Backend) throws -> Bool {
        let (experts, tokens, width, hidden) = (8, 96, 64, 32)
        let spread = Initializer.normal(deviation: 0.2)
        let gate = Parameter("gate", Shape(experts, width), role: .router, initializer: spread)
        let inputs = (0..<experts * 2).map {
            Parameter("in.\($0)", Shape(hidden, width), role: .expert, initializer: spread)
        }
        let outputs = (0..<experts).map {
            Parameter("out.\($0)", Shape(width, hidden), role: .expert, initializer: spread)
        }
        let store = try ParameterStore(
            [gate] + inputs + outputs, backend: backend, precision: precision, isTrained: true)
        try store.initialize(seed: 1, backend: backend)
        let layer = MoELayer(
            layer: 0,
            router: TopKRouter(
                weight: gate, selectionBias: nil, choices: 2, configuration: RouterConfiguration(renormalizes: true),
                policy: .dropless, isPadded: false, losses: RouterLosses(balance: 0.01, z: 0.001)),
            bank: GroupedBank(ExpertMatrices(inputs: inputs, outputs: outputs, activation: .swiglu)))
        let layout = try TokenLayout.sequences([tokens / 3, tokens / 3, tokens / 3], backend: backend)
        let (x, dy, y, dx) = try (
            empty(tokens, width), empty(tokens, width), empty(tokens, width), empty(tokens, width)
        )
        func empty(_ rows: Int, _ columns: Int) throws -> Tensor {
            try backend.zeros(Shape(rows, columns), precision.modelType)
        }
        let pass = {
            for part in store.gradientParts { try backend.fill(part.gradients(), with: 0) }
            let tape = Tape(backend: backend)
            let input = tape.leaf(x)
            let context = MoEContext(forward: ForwardContext(tape: tape, layout: layout, trainingStep: 1, seed: 1))
            let output = try layer(input, context)
            try tape.addRoot(output.hidden, seed: dy)
            try tape.backward()
            try backend.copy(output.hidden.tensor, into: y)
            if let gradient = tape.gradient(of: input) { try backend.copy(gradient, into: dx) }
        }
        let results = { try ([y, dx] + store.gradientParts.map { try $0.gradients() }).map { try backend.floats($0) } }
        var work: (any RecordedWork)?
        var isEqual = true
        for round in 0..<3 {
            for (tensor, index) in [(x, 0), (dy, 1)] {
                let stream = RandomStream(seed: 3, purpose: .initialization, layer: index, step: round)
                try backend.fillRandom(tensor, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
            }
            try pass()
            let expected = try results()
            for tensor in [y, dx] { try backend.fill(tensor, with: 0) }
            let repeated = try work ?? backend.record(pass)
            work = repeated
            try repeated.run()
            isEqual = try isEqual && expected == results() && expected[0].contains { $0 != 0 }
        }
        return isEqual
    }

    /// Prompts that are continued together, of different lengths.
    private static func generation(_ precision: Precision, _ backend: any Backend) throws -> Bool {
        let configuration = ModelConfiguration(
            vocabulary: 512, width: 64, heads: 4, keyValueHeads: 2, maximumPositions: 128,
            position: .rotary(theta: 10_000),
            feedForward: [.moe(MoEConfiguration(experts: 8, choices: 2, width: 64)), .dense(width: 128)],
            initialDeviation: 0.2)
        let model = try Transformer(configuration, backend: backend, precision: precision, isTrained: false)
        try model.store.initialize(seed: 7, backend: backend)
        let prompts = [1, 17, 40].map { count in (0..<count).map { Int32(($0 * 37 + count) % 512) } }
        let generations = try [false, true].map { recordsSteps in
            try Generator(
                model, backend: backend,
                options: GenerationOptions(maximumTokens: 40, recordsSteps: recordsSteps)
            ).generate(prompts)
        }
        return generations[0] == generations[1]
    }
}
