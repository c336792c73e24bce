import ApusTensor

extension Tape {
    /// Runs `body` without keeping what its backward needs, and runs it again when backward arrives.
    ///
    /// The second run happens on a tape of its own and must compute the same values: draws are keyed by position, and a
    /// body that routes replays its routing decision. Roots that the body registers count in the second run only.
    ///
    /// - Parameters:
    ///   - inputs: The variables that `body` reads; it must not capture others.
    ///   - keeping: Which collectives' outputs the second run takes over from the first; a block inside another keeps at
    ///     least what that one keeps.
    ///   - body: The block to run on the given tape.
    public func checkpoint(
        _ name: String, inputs: [Variable], keeping: KeptOutputs = [],
        body: @escaping (Tape, [Variable]) throws -> [Variable]
    ) throws -> [Variable] {
        guard isRecording else { return try body(self, inputs) }
        let values = KeptValues(keeping, inside: kept)
        let idle = Tape(backend: backend, isRecording: false, trace: trace)
        idle.kept = values
        let outputs = try trace.span(name, .op) { try body(idle, inputs.map { .constant($0.tensor) }) }
        return record(name, inputs: inputs, outputs: outputs.map(\.tensor), runsAlways: true) { flow in
            let inner = Tape(backend: flow.backend, trace: flow.tape.trace)
            values.beginReplay()
            inner.kept = values
            let leaves = inputs.map { $0.needsGradient ? inner.leaf($0.tensor) : .constant($0.tensor) }
            let results = try body(inner, leaves)
            for (index, result) in results.enumerated() {
                if let gradient = flow.takeOutput(index) { try inner.addRoot(result, seed: gradient) }
            }
            try inner.backward(schedule: flow.tape.schedule)
            for (input, leaf) in zip(inputs, leaves) {
                if let gradient = inner.gradient(of: leaf) { try flow.accumulate(gradient, into: input) }
            }
        }
    }
}
