import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, R rows, D row width, P ranks of a tensor group.

/// Two index tables that undo each other; -1 stands for a row that the other side does not have.
struct RowOrder {
    /// (R) for each row after, its place before.
    let places: Tensor
    /// For each row before, its place after.
    let rows: Tensor

    /// The order that undoes this one.
    var reversed: RowOrder { RowOrder(places: rows, rows: places) }
}

extension Tape {
    /// Rows in another order, zeros where `order` names none.
    func arranged(_ x: Variable, _ order: RowOrder) throws -> Variable {
        let y = try backend.empty(x.shape.replacingFirst(with: order.places.count), x.dtype)
        try backend.gatherRows(x.tensor, index: order.places, scale: nil, into: y)
        return record("arrange", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dx = try flow.backend.empty(x.shape, x.dtype)
            try flow.backend.gatherRows(dy, index: order.rows, scale: nil, into: dx)
            try flow.accumulate(dx, into: x)
        }
    }

    /// The first `count` rows, or all and zeros behind them.
    func resized(_ x: Variable, rows count: Int) throws -> Variable {
        let present = x.shape[0]
        if present == count { return x }
        let y: Tensor
        if count < present {
            y = x.tensor[0..<count]
        } else {
            y = try backend.empty(x.shape.replacingFirst(with: count), x.dtype)
            try backend.copy(x.tensor, into: y[0..<present])
            try backend.fill(y[present..<count], with: 0)
        }
        return record("resize", inputs: [x], output: y) { flow in
            guard let dy = flow.output() else { return }
            let dx = try flow.backend.empty(x.shape, x.dtype)
            let common = min(present, count)
            try flow.backend.copy(dy[0..<common], into: dx[0..<common])
            if common < present { try flow.backend.fill(dx[common..<present], with: 0) }
            try flow.accumulate(dx, into: x)
        }
    }

    /// This rank's part of rows that all ranks hold, in parts of equal length of which the last ones may be short.
    func ownPart(_ x: Variable, over collective: any Collective, layer: Int?) throws -> Variable {
        let parts = RowParts(rows: x.shape[0], parts: collective.size)
        let padded = try resized(x, rows: parts.length * parts.count)
        let own = try takeOwnRows(padded, over: collective, layer: layer)
        return try resized(own, rows: parts[collective.rank].count)
    }

    /// All `rows` of the value of which each rank holds its ``ownPart(_:over:layer:)``; every rank computes the same
    /// from them.
    func wholeOfParts(
        _ x: Variable, rows: Int, over collective: any Collective, layer: Int?
    ) throws -> Variable {
        let parts = RowParts(rows: rows, parts: collective.size)
        let padded = try resized(x, rows: parts.length)
        let all = try startAllGather(padded, downstream: .replicated, over: collective, layer: layer).finish()
        return try resized(all, rows: rows)
    }
}

/// Rows cut into parts of equal length, of which the last ones may be short or empty.
struct RowParts {
    /// All of them.
    let rows: Int
    /// Number of parts.
    let count: Int

    init(rows: Int, parts: Int) {
        self.rows = rows
        count = parts
    }

    /// Rows of a part that is not short.
    var length: Int { (rows + count - 1) / count }

    /// The rows of one part.
    subscript(part: Int) -> Range<Int> { min(part * length, rows)..<min((part + 1) * length, rows) }
}
