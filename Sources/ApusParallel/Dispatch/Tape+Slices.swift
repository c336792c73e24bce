import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: R rows, D row width, S slices that an expert is cut into.

extension Tape {
    /// The rows once for each slice, (R, D) to (S R, D); a row's gradient is the sum over its copies, in their order.
    func repeated(_ x: Variable, slices: Int) throws -> Variable {
        guard slices > 1 else { return x }
        let y = try backend.empty(x.shape.replacingFirst(with: x.shape[0] * slices), x.dtype)
        try backend.repeatRows(x.tensor, into: y)
        return record("repeat", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            try flow.accumulate(into: x) { dx, adds in try flow.backend.sumSlices(dy, into: dx, adds: adds) }
        }
    }

    /// The sum of the slices' results in their order, (S R, D) to (R, D); all of them have its gradient.
    func sumOfSlices(_ x: Variable, slices: Int) throws -> Variable {
        guard slices > 1 else { return x }
        let y = try backend.empty(x.shape.replacingFirst(with: x.shape[0] / slices), x.dtype)
        try backend.sumSlices(x.tensor, into: y, adds: false)
        return record("sum slices", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dx = try flow.backend.empty(x.shape, x.dtype)
            try flow.backend.repeatRows(dy, into: dx)
            try flow.accumulate(dx, into: x)
        }
    }
}

extension Backend {
    fileprivate func repeatRows(_ rows: Tensor, into copies: Tensor) throws {
        let count = rows.shape[0]
        guard count > 0 else { return }
        for first in stride(from: 0, to: copies.shape[0], by: count) {
            try copy(rows, into: copies[first..<first + count])
        }
    }

    /// Rounds each sum once, whatever the type.
    fileprivate func sumSlices(_ slices: Tensor, into sum: Tensor, adds: Bool) throws {
        let count = sum.shape[0]
        guard count > 0 else { return }
        let choices = slices.shape[0] / count
        var slots: [Int32] = []
        slots.reserveCapacity(count * choices)
        for row in 0..<count {
            for slice in 0..<choices { slots.append(Int32(slice * count + row)) }
        }
        try combineRows(
            slices, slotToRow: tensor(slots, Shape(slots.count)), weights: nil, choices: choices, into: sum, adds: adds)
    }
}
