import ApusKernels
import ApusTensor

/// A collective under way on a tape, to be finished exactly once: doing it twice does not compile.
///
/// It is two nodes. In forward, *start* begins the collective and *finish* waits for it; what runs in between hides it.
/// In backward, the adjoint of *finish* begins the mirrored collective on the gradient and the adjoint of *start* waits
/// for it and adds the result to the input's gradient. Both adjoints run on every rank whether or not a gradient
/// reaches them there, with zeros in its place, for the other ranks wait for them.
public struct Exchange: ~Copyable {
    private let complete: () throws -> Variable

    init(_ complete: @escaping () throws -> Variable) { self.complete = complete }

    /// Waits for the result.
    ///
    /// - Throws: the error that the collective ended with.
    public consuming func finish() throws -> Variable { try complete() }
}

extension Tape {
    /// Starts a collective and records its two nodes.
    ///
    /// - Parameters:
    ///   - x: What the collective reads. A constant is not recorded; whether it is one must not depend on the rank.
    ///   - kind: What its output is when a checkpointed block keeps it; `nil` when nothing is exchanged in forward.
    ///   - start: Returns the output, under way or complete already. Not called when a checkpointed block runs again
    ///     that has kept the output of its first run.
    ///   - mirror: Starts what backward does to the gradient of `result`, which is dense, and returns the gradient of
    ///     `x`, under way.
    func exchange(
        _ name: String, _ x: Variable, _ kind: KeptOutputs?, start: () throws -> Tensor,
        mirror: @escaping (_ dy: Tensor, _ backend: any Backend) throws -> Tensor
    ) throws -> Exchange {
        let result = try kind.map { try keeping($0, start) } ?? start()
        guard isRecording, x.needsGradient else {
            return Exchange { [backend] in .constant(try backend.arrived(result)) }
        }
        let source = GradientSlot(of: x)
        let pending = record("\(name) start", kind: .start, inputs: [x], outputs: [result], runsAlways: true) { flow in
            guard let dx = flow.takeOutput() else { return }
            try flow.accumulate(flow.backend.arrived(dx), into: source)
        }[0]
        let arriving = GradientSlot(of: pending, shape: x.shape)
        let (shape, dtype) = (result.shape, result.dtype)
        return Exchange { [self] in
            let y = try backend.arrived(pending.tensor)
            return record("\(name) finish", kind: .finish, inputs: [pending], outputs: [y], runsAlways: true) { flow in
                let dy = try flow.takeOutput()?.dense(flow.backend) ?? flow.backend.zeros(shape, dtype)
                try flow.accumulate(mirror(dy, flow.backend), into: arriving)
            }[0]
        }
    }
}

extension Tensor {
    /// The tensor itself when its rows follow each other without gaps, else a copy in which they do.
    func dense(_ backend: any Backend) throws -> Tensor {
        if isContiguous { return self }
        let copy = try backend.empty(shape, dtype)
        try backend.copy(self, into: copy)
        return copy
    }
}
