import ApusKernels

extension Tape {
    /// `left + right`.
    public func add(_ left: Variable, _ right: Variable) throws -> Variable {
        let sum = try backend.empty(left.shape, left.dtype)
        try backend.add(left.tensor, right.tensor, into: sum)
        return record("add", inputs: [left, right], output: sum) { flow in
            guard let gradient = flow.takeOutput() else { return }
            try flow.accumulate(gradient, into: left)
            try flow.accumulate(gradient, into: right)
        }
    }
}
