import Glibc

// Shape letters: V vocabulary.

/// The tokens that can be chosen from one row of logits, with their weights.
struct Candidates {
    /// Ids; by falling weight where there is a bound, lower ids first among equals, else ascending.
    private(set) var ids: [Int32]
    /// Probabilities times an arbitrary factor.
    private(set) var weights: [Double]

    /// 1. Of the (V) logits, the `topK` highest, equal ones by lower id.
    /// 2. Weights `exp((logit - highest) / temperature)`.
    /// 3. Of these, by falling weight, as many as it takes to reach `topP` of the sum.
    init(_ logits: UnsafeBufferPointer<Float>, highest: Float, _ options: SamplingOptions) {
        if options.topK > 0, options.topK < logits.count {
            ids = Candidates.highest(options.topK, of: logits)
        } else {
            ids = Array(0..<Int32(logits.count))
        }
        let temperature = Double(options.temperature)
        weights = ids.map { exp((Double(logits[Int($0)]) - Double(highest)) / temperature) }
        if options.topP < 1 { keepNucleus(Double(options.topP)) }
    }

    /// The id at `fraction`, between 0 and 1, of the summed weights.
    func pick(at fraction: Double) -> Int32 {
        let target = fraction * weights.reduce(0, +)
        var sum = 0.0
        var last = ids[0]
        for (id, weight) in zip(ids, weights) where weight > 0 {
            sum += weight
            last = id
            if sum > target { break }
        }
        return last
    }

    /// The `count` highest in falling order, by a heap whose root is the lowest kept: most logits are passed over after
    /// one comparison.
    private static func highest(_ count: Int, of logits: UnsafeBufferPointer<Float>) -> [Int32] {
        func isBelow(_ left: Int32, _ right: Int32) -> Bool {
            let (a, b) = (logits[Int(left)], logits[Int(right)])
            return a != b ? a < b : left > right
        }
        var heap: [Int32] = []
        heap.reserveCapacity(count)
        func sink(_ start: Int) {
            var place = start
            while true {
                var lowest = place
                for child in [2 * place + 1, 2 * place + 2]
                where child < heap.count && isBelow(heap[child], heap[lowest]) {
                    lowest = child
                }
                if lowest == place { return }
                heap.swapAt(place, lowest)
                place = lowest
            }
        }
        heap.append(contentsOf: 0..<Int32(count))
        for place in (0..<count / 2).reversed() { sink(place) }
        for id in Int32(count)..<Int32(logits.count) where isBelow(heap[0], id) {
            heap[0] = id
            sink(0)
        }
        return heap.sorted { isBelow($1, $0) }
    }

    private mutating func keepNucleus(_ share: Double) {
        let total = weights.reduce(0, +)
        // Tokens below an even part of what may be left out sum to less than that, so only the others need sorting.
        let least = (1 - share) * total / Double(weights.count)
        var order = weights.indices.filter { weights[$0] >= least }
        order.sort { weights[$0] != weights[$1] ? weights[$0] > weights[$1] : ids[$0] < ids[$1] }
        var sum = 0.0
        var kept = 0
        while kept < order.count, kept == 0 || sum < share * total {
            sum += weights[order[kept]]
            kept += 1
        }
        (ids, weights) = (order.prefix(kept).map { ids[$0] }, order.prefix(kept).map { weights[$0] })
    }
}
