import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport

// Shape letters: T tokens, V vocabulary, D model width.

/// A decoder of a few blocks with every layer of this target in it, small enough to run hundreds of times.
struct TinyModel {
    static let (vocabulary, width, hidden, headWidth) = (23, 24, 40, 8)

    let placed: Placed
    let tokens: Tensor
    let targets: Tensor
    let layout: TokenLayout
    private let embedding: Embedding
    private let blocks: [Block]
    private let loss: LanguageModelLoss

    private struct Block {
        let before: Norm
        let attention: SelfAttention
        let between: Norm
        let feedForward: FeedForward

        func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
            let tape = context.tape
            let mixed = try attention(try before(x, on: tape), context)
            let (sum, normalized) = try between.addingResidual(x, mixed, on: tape)
            return try tape.add(sum, try feedForward(normalized, on: tape))
        }
    }

    /// - Parameter lengths: Of the sequences; their tokens and targets are drawn from a fixed seed.
    init(
        _ backend: CPUBackend, blocks count: Int = 2, lengths: [Int] = [9, 14], precision: Precision = .f32,
        seed: UInt64 = 1,
        chunk: Int = 8
    ) throws {
        let (width, head) = (Self.width, Self.headWidth)
        var parameters: [Parameter] = []
        func make(_ name: String, _ dimensions: Int..., deviation: Float = 0.2) -> Parameter {
            let parameter = Parameter(name, Shape(dimensions), initializer: .normal(deviation: deviation))
            parameters.append(parameter)
            return parameter
        }
        func scale(_ name: String, _ width: Int) -> Parameter {
            let parameter = Parameter(name, Shape(width), decays: false, initializer: .constant(1))
            parameters.append(parameter)
            return parameter
        }
        let rotary = try backend.rotaryTable(positions: 256, headWidth: head, theta: 1000)
        embedding = Embedding(table: make("embedding", Self.vocabulary, width, deviation: 1))
        blocks = (0..<count).map { index in
            let norm = SelfAttention.QueryKeyNorm(
                query: scale("\(index).query_norm", head), key: scale("\(index).key_norm", head), epsilon: 1e-5)
            return Block(
                before: Norm(weight: scale("\(index).before", width), epsilon: 1e-5),
                attention: SelfAttention(
                    layer: index, shape: SelfAttention.Shape(heads: 4, keyValueHeads: 2, headWidth: head),
                    projection: Linear(weight: make("\(index).projection", 8 * head, width)),
                    output: Linear(weight: make("\(index).output", width, 4 * head)), queryKeyNorm: norm, rotary: rotary
                ),
                between: Norm(weight: scale("\(index).between", width), epsilon: 1e-5),
                feedForward: FeedForward(
                    input: make("\(index).up", 2 * Self.hidden, width),
                    output: make("\(index).down", width, Self.hidden),
                    activation: .swiglu))
        }
        loss = LanguageModelLoss(weight: make("head", Self.vocabulary, width), chunk: chunk)
        placed = try Placed(parameters, backend, precision: precision, seed: seed)
        layout = try TokenLayout.sequences(lengths, backend: backend)
        var generator = SeededGenerator(seed: 77)
        let count = layout.tokenCount
        tokens = try backend.allocator.integers(
            (0..<count).map { _ in Int.random(in: 0..<Self.vocabulary, using: &generator) })
        targets = try backend.allocator.integers(
            (0..<count).map { $0 % 7 == 6 ? -1 : Int.random(in: 0..<Self.vocabulary, using: &generator) })
    }

    /// Records the loss of all tokens; with `isCheckpointed` each block is computed again in backward.
    func record(on tape: Tape, isCheckpointed: Bool = false) throws -> Variable {
        let context = ForwardContext(tape: tape, layout: layout)
        var x = try embedding(tokens, context)
        for (index, block) in blocks.enumerated() {
            if isCheckpointed {
                x = try tape.checkpoint("block \(index)", inputs: [x]) { [try block($1[0], context.on($0))] }[0]
            } else {
                x = try block(x, context)
            }
        }
        return try loss(x, targets: targets, scale: 1 / Float(layout.tokenCount), on: tape).total
    }

    /// Forward and backward on a tape of their own; gradients add to what is there.
    @discardableResult
    func step(schedule: BackwardSchedule = .reverse, isCheckpointed: Bool = false, seed: Float = 1) throws -> Tensor {
        let tape = Tape(backend: placed.backend)
        let loss = try record(on: tape, isCheckpointed: isCheckpointed)
        try tape.addRoot(loss, seed: seed)
        try tape.backward(schedule: schedule)
        return loss.tensor
    }

    /// The gradients of one step from zero.
    func gradients(schedule: BackwardSchedule = .reverse, isCheckpointed: Bool = false) throws -> [String: [Float]] {
        try placed.zeroGradients()
        try step(schedule: schedule, isCheckpointed: isCheckpointed)
        return try placed.gradients()
    }
}
