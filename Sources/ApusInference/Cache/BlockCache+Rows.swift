import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens of a step, N rows of a step with those kept.

extension BlockCache {
    /// Which rows of a step come from where: the same for all layers that keep as many.
    struct RowPlan {
        /// Rows kept before a sequence's new ones, at most.
        let earlier: Int
        /// Of each sequence of the step: rows kept of it, and new ones.
        let parts: [(held: Int, new: Int)]
        /// (N) `i32`.
        let positions: Tensor
        /// (T) `i32`.
        let places: Tensor
    }

    /// See ``KeyValueStore/extend(layer:rows:by:)``; only inside ``step(_:_:)``.
    ///
    /// What is kept changes at the step's end, as lengths do: a step that fails leaves it as it was.
    public func extend(layer: Int, rows: Tensor, by earlier: Int) throws -> ExtendedRows {
        let (plan, kept) = try rowPlan(layer: layer, by: earlier)
        let all = try backend.empty(Shape(plan.positions.count, rows.shape[1]), rows.dtype)
        var (source, target) = (0, 0)
        var last: [Tensor] = []
        for ((held, new), old) in zip(plan.parts, kept) {
            if held > 0, let old { try backend.copy(old, into: all[target..<target + held]) }
            try backend.copy(rows[source..<source + new], into: all[target + held..<target + held + new])
            source += new
            target += held + new
            // A copy of its own: a view would keep all rows of the step.
            let count = min(earlier, held + new)
            let copy = try backend.empty(Shape(count, rows.shape[1]), rows.dtype, .keyValueCache)
            try backend.copy(all[target - count..<target], into: copy)
            last.append(copy)
        }
        keepRows(last, layer: layer)
        return ExtendedRows(rows: all, positions: plan.positions, places: plan.places)
    }

    /// The plan for sequences with `lengths` tokens and `new` more.
    func makeRowPlan(lengths: [Int], new: [Int], by earlier: Int) throws -> RowPlan {
        var (positions, places): ([Int32], [Int32]) = ([], [])
        var parts: [(held: Int, new: Int)] = []
        for (length, count) in zip(lengths, new) {
            let held = min(length, earlier)
            parts.append((held, count))
            positions += Array(repeating: 0, count: held)
            places += (positions.count..<positions.count + count).map(Int32.init)
            positions += (length..<length + count).map(Int32.init)
        }
        return RowPlan(
            earlier: earlier, parts: parts, positions: try backend.tensor(positions, Shape(positions.count)),
            places: try backend.tensor(places, Shape(places.count)))
    }
}
