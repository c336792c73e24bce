import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Testing

/// What a rank has of a gradient.
struct GradientPiece: Sendable {
    let values: [Float]
    let shape: [Int]
    let shard: Shard?
    let isPartial: Bool

    init(_ parameter: Parameter) throws {
        values = try parameter.gradient()?.floats() ?? []
        shape = parameter.shape.dimensions
        shard = parameter.shard
        isPartial = parameter.sharing.overTensorRanks == .partial
    }
}

/// What a rank computed.
struct DividedResult: Sendable {
    let loss: Float
    let perToken: [Float]
    let gradients: [String: GradientPiece]
}

/// A value for every element of the full parameter, the same on every rank; norms near 1, nothing special elsewhere.
func fullValues(_ parameter: Parameter) -> [Float] {
    let seed = parameter.name.utf8.reduce(UInt64(7)) { $0 &* 31 &+ UInt64($1) }
    let values = randomValues(parameter.shape.count, seed: seed, scale: 0.3)
    return parameter.initializer == .constant(1) ? values.map { 1 + $0 } : values
}

/// The elements of `values` that `shard` has.
func part(_ values: [Float], of shape: Shape, _ shard: Shard?) -> [Float] {
    guard let shard else { return values }
    let inner = shape.dimensions[(shard.dimension + 1)...].reduce(1, *)
    let outer = shape.dimensions[..<shard.dimension].reduce(1, *)
    return (0..<outer).flatMap { index in
        let first = index * shape[shard.dimension]
        return values[(first + shard.range.lowerBound) * inner..<(first + shard.range.upperBound) * inner]
    }
}

extension ParameterStore {
    /// Overwrites every weight with its part of ``fullValues(_:)``.
    func assignFullValues(_ backend: any Backend) throws {
        for parameter in parameters {
            let values = part(fullValues(parameter), of: parameter.shape, parameter.shard)
            let target = try parameter.acquire(on: backend.stream)
            if target.dtype == .f32 {
                try backend.upload(values, into: target)
            } else {
                try backend.upload(values.map(bfloat16Bits), into: target)
            }
        }
    }
}

/// Puts the ranks' pieces of one gradient together: shards side by side, partial ones summed. Whole ones must agree.
func joined(_ pieces: [GradientPiece], _ name: String) -> [Double] {
    let first = pieces[0]
    let count = first.shape.reduce(1, *)
    guard first.shard != nil else {
        guard first.isPartial else {
            for piece in pieces.dropFirst() {
                #expect(piece.values == first.values, "\(name): ranks with the whole gradient differ")
            }
            return first.values.map(Double.init)
        }
        return (0..<count).map { index in pieces.reduce(0) { $0 + Double($1.values[index]) } }
    }
    var whole = [Double](repeating: .nan, count: count)
    for piece in pieces {
        guard let shard = piece.shard else { continue }
        let inner = piece.shape[(shard.dimension + 1)...].reduce(1, *)
        for (index, value) in piece.values.enumerated() {
            let (row, column) = (index / inner, index % inner)
            let (outer, own) = (row / shard.range.count, row % shard.range.count)
            whole[(outer * piece.shape[shard.dimension] + shard.range.lowerBound + own) * inner + column] =
                Double(value)
        }
    }
    return whole
}

/// A model's loss and gradients on one rank or on several.
struct DividedRun: Sendable {
    let configuration: ModelConfiguration
    var lengths = [12, 8]
    var checkpointing = false
    var keptOutputs: KeptOutputs = []
    var precision = Precision.f32

    /// Runs the given sequences of the batch, all by default, with what `partition` gives of the model.
    func callAsFunction(_ partition: any Partition, sequences: Range<Int>? = nil) throws -> DividedResult {
        let backend = CPUBackend(threadCount: 1)
        let model = try Transformer(
            configuration, backend: backend, precision: precision, isTrained: true, partition: partition)
        try model.store.assignFullValues(backend)
        let count = lengths.reduce(0, +)
        var generator = SeededGenerator(seed: 5)
        let ids = (0...count).map { _ in Int.random(in: 0..<configuration.vocabulary, using: &generator) }
        // Every fifth target is ignored.
        let targets = (0..<count).map { $0 % 5 == 3 ? -1 : ids[$0 + 1] }
        let tape = Tape(backend: backend)
        let sequences = sequences ?? 0..<lengths.count
        let own = lengths[..<sequences.lowerBound].reduce(0, +)..<lengths[..<sequences.upperBound].reduce(0, +)
        let layout = try TokenLayout.sequences(
            Array(lengths[sequences]), firstGlobalToken: own.lowerBound, backend: backend)
        let context = MoEContext(
            forward: ForwardContext(tape: tape, layout: layout, trainingStep: 1, seed: 3, keptOutputs: keptOutputs),
            globalTokens: count)
        let result = try model.loss(
            tokens: backend.allocator.integers(Array(ids[own])),
            targets: backend.allocator.integers(Array(targets[own])),
            scale: 0.25, checkpointing: checkpointing, context)
        try tape.backward()
        return DividedResult(
            loss: result.loss.tensor.floats()[0], perToken: result.perToken.floats(),
            gradients: try Dictionary(
                uniqueKeysWithValues: model.store.parameters.map { ($0.name, try GradientPiece($0)) }))
    }

    /// Runs on `ranks` tensor-parallel ranks and compares with the whole model on one.
    func expectEqualsWhole(
        ranks: Int, dividesTokens: Bool, experts: ExpertParallelOptions = ExpertParallelOptions(),
        within tolerance: Double = 1e-5, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let whole = try self(WholeModel())
        let results = try InProcess.run(ranks: ranks) { collective in
            try self(TensorPartition(over: collective, dividesTokens: dividesTokens, experts: experts))
        }
        for result in results {
            expectClose(
                [result.loss], [Double(whole.loss)], within: tolerance, "loss", sourceLocation: sourceLocation)
            expectClose(
                result.perToken, whole.perToken.map(Double.init), within: tolerance, "losses",
                sourceLocation: sourceLocation)
        }
        try expectSameGradients(
            whole.gradients, within: tolerance, sourceLocation: sourceLocation
        ) { name in joined(results.compactMap { $0.gradients[name] }, name) }
    }

    /// Compares every gradient of the whole model with what `found` makes of the ranks'.
    func expectSameGradients(
        _ whole: [String: GradientPiece], within tolerance: Double = 1e-5,
        sourceLocation: SourceLocation = #_sourceLocation, _ found: (_ name: String) -> [Double]
    ) throws {
        func norm(_ name: String) -> Double {
            (whole[name]?.values ?? []).reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
        }
        for (name, expected) in whole {
            var size = norm(name)
            #expect(size > 0, "\(name) has no gradient", sourceLocation: sourceLocation)
            // Without rotation a bias of the keys moves all scores of a query alike: its derivative is 0, and rounding
            // is all that there is to compare.
            if name.hasSuffix("k_proj.bias"), configuration.position == .learned {
                size = norm(name.replacing("k_proj", with: "q_proj"))
            }
            let values = found(name)
            #expect(values.count == expected.values.count, "\(name)", sourceLocation: sourceLocation)
            let difference = zip(values, expected.values).reduce(0) {
                $0 + ($1.0 - Double($1.1)) * ($1.0 - Double($1.1))
            }.squareRoot()
            // Not the other way round: a NaN must fail.
            #expect(
                difference <= tolerance * size, "\(name): \(difference) of \(size)", sourceLocation: sourceLocation)
        }
    }
}
