public import ApusKernels
public import ApusTensor

/// Records coarse ops as they run, and runs their adjoints.
///
/// 1. A layer computes a value with the backend and calls ``record(_:kind:inputs:outputs:backward:)`` with a closure
///    that holds what the adjoint needs, and nothing else.
/// 2. Losses are registered as roots where they arise, each with its seed: the language-model loss at the head, each
///    layer's balance and z loss in the layer.
/// 3. ``backward(schedule:)`` visits the nodes in any order in which every consumer comes before its producer. A
///    node's closure and the gradients of its outputs are released as soon as it has run.
///
/// An asynchronous collective is two nodes, ``NodeKind/start`` and ``NodeKind/finish``. Running backward, the adjoint
/// of *finish* starts the mirrored collective and the adjoint of *start* waits for it; what a schedule puts between
/// them hides the communication. Several tapes may be alive at once, one for each micro-batch.
public final class Tape {
    /// Where ops run.
    public let backend: any Backend
    /// Whether ops are recorded. An idle tape passes values through and keeps nothing: evaluation, or the first pass
    /// of a checkpointed block.
    public let isRecording: Bool
    /// What the times of ops are recorded in; `nil` to record none.
    public let trace: Trace?

    private(set) var nodes: [Node] = []
    private var producers: [Int] = []
    var gradients: [Tensor?] = []
    private var roots: [(slot: Int, seed: Tensor)] = []
    /// The schedule of the backward under way, which checkpointed blocks follow too.
    private(set) var schedule = BackwardSchedule.reverse
    /// The part of the model under way, which a trace shows its ops under.
    var currentPart: String?
    /// What the checkpointed block under way keeps for its second run, or takes over from its first.
    var kept: KeptValues?

    /// The role of a node in an asynchronous exchange.
    public enum NodeKind: Sendable {
        /// An op that is complete when it returns.
        case compute
        /// The beginning of an exchange; its adjoint waits.
        case start
        /// The end of an exchange; its adjoint starts the mirrored exchange.
        case finish
    }

    struct Node {
        let name: String
        let kind: NodeKind
        let part: String?
        let inputs: [Int]
        let outputs: [Int]
        let runsAlways: Bool
        var backward: ((borrowing GradientFlow) throws -> Void)?
    }

    /// A tape over `backend`; with `isRecording` false it only carries the backend through a forward pass.
    public init(backend: any Backend, isRecording: Bool = true, trace: Trace? = nil) {
        self.backend = backend
        self.isRecording = isRecording
        self.trace = trace
    }

    /// Makes `tensor` a leaf whose gradient can be read after backward with ``gradient(of:)``.
    public func leaf(_ tensor: Tensor) -> Variable {
        guard isRecording else { return .constant(tensor) }
        producers.append(-1)
        gradients.append(nil)
        return Variable(tensor: tensor, slot: gradients.count - 1)
    }

    /// Records one op. `backward` runs at most once, and not at all when no gradient reaches an output, unless it
    /// `runsAlways`.
    ///
    /// - Parameters:
    ///   - name: The op's name in traces and messages.
    ///   - kind: Its role in an asynchronous exchange.
    ///   - inputs: The variables it read. Constants are allowed and get no gradient.
    ///   - outputs: The tensors it made.
    ///   - runsAlways: Whether `backward` runs even when no gradient has arrived: that of an exchange, which other
    ///     ranks wait for, and that of a block that may contain one.
    ///   - backward: Reads output gradients from the flow and accumulates into inputs and parameters.
    public func record(
        _ name: String, kind: NodeKind = .compute, inputs: [Variable], outputs: [Tensor], runsAlways: Bool = false,
        backward: @escaping (borrowing GradientFlow) throws -> Void
    ) -> [Variable] {
        trace?.finished(name)
        guard isRecording else { return outputs.map(Variable.constant) }
        let slots = outputs.map { _ in
            producers.append(nodes.count)
            gradients.append(nil)
            return gradients.count - 1
        }
        nodes.append(
            Node(
                name: name, kind: kind, part: currentPart, inputs: inputs.compactMap(\.slot), outputs: slots,
                runsAlways: runsAlways, backward: backward))
        return zip(outputs, slots).map { Variable(tensor: $0, slot: $1) }
    }

    /// Records an op with one output.
    public func record(
        _ name: String, inputs: [Variable], output: Tensor,
        backward: @escaping (borrowing GradientFlow) throws -> Void
    ) -> Variable {
        record(name, inputs: inputs, outputs: [output], backward: backward)[0]
    }

    /// Adds `variable` to what backward differentiates, weighted by `seed`: its gradient starts as `seed` everywhere.
    public func addRoot(_ variable: Variable, seed: Float) throws {
        guard isRecording, variable.slot != nil, seed != 0 else { return }
        let tensor = try backend.allocator.empty(variable.shape, variable.dtype, .activations)
        try backend.fill(tensor, with: seed)
        try addRoot(variable, seed: tensor)
    }

    /// Adds `variable` to what backward differentiates, starting from the gradient `seed` of the same shape.
    public func addRoot(_ variable: Variable, seed: Tensor) throws {
        guard isRecording, let slot = variable.slot else { return }
        precondition(seed.shape == variable.shape, "a seed has its root's shape")
        roots.append((slot, seed))
    }

    /// Runs the adjoints of everything recorded, from the roots, and empties the tape.
    ///
    /// Gradients of leaves stay readable. With `schedule` the order may be any in which consumers precede producers;
    /// one that breaks this traps, for it is an error of the program.
    public func backward(schedule: BackwardSchedule = .reverse) throws {
        for (slot, seed) in roots { try accumulate(seed, into: slot) }
        roots.removeAll()
        self.schedule = schedule
        let order = schedule.order(of: TapeGraph(nodes: nodes, producers: producers))
        for index in order {
            // Taken out of the tape, so that what the closure holds is freed as soon as it has run.
            let backward = nodes[index].backward.take()
            let outputs = nodes[index].outputs
            let isReached = nodes[index].runsAlways || outputs.contains { gradients[$0] != nil }
            if isReached, let backward {
                trace?.beginAdjoint(nodes[index].name, in: nodes[index].part)
                try backward(GradientFlow(tape: self, outputs: outputs))
                trace?.end()
            }
            for output in outputs { gradients[output] = nil }
        }
        trace?.leavePart()
        nodes.removeAll()
        producers = producers.map { _ in -1 }
    }

    /// The gradient that has arrived at `variable`; `nil` when none has. Valid for leaves after backward.
    public func gradient(of variable: Variable) -> Tensor? { variable.slot.flatMap { gradients[$0] } }

    func accumulate(_ gradient: Tensor, into slot: Int) throws {
        guard let present = gradients[slot].take() else {
            gradients[slot] = gradient
            return
        }
        gradients[slot] = try backend.sumOfGradients(present, gradient)
    }
}
