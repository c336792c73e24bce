// Shape letters: E experts.

/// Each expert's share of the tokens over a run: for every MoE layer a column of E means for each bucket of steps.
struct LoadHistory {
    /// A layer's columns.
    struct Layer {
        /// E.
        let experts: Int
        fileprivate var sums: [Double]
        fileprivate var counts: [Int]

        fileprivate init(experts: Int, buckets: Int) {
            self.experts = experts
            sums = Array(repeating: 0, count: experts * buckets)
            counts = Array(repeating: 0, count: buckets)
        }

        /// The mean share of an expert in a bucket; `nil` where no step has the layer.
        func share(_ expert: Int, in bucket: Int) -> Double? {
            counts[bucket] == 0 ? nil : sums[bucket * experts + expert] / Double(counts[bucket])
        }
    }

    /// How steps are put in columns.
    let buckets: Buckets
    /// The layers by their index.
    private(set) var layers: [Int: Layer] = [:]

    /// A history without steps.
    init(buckets: Buckets) { self.buckets = buckets }

    /// Adds the step at a place. A layer whose number of experts has changed, or with a share missing, is left out.
    mutating func add(_ loads: [(layer: Int, shares: [Double])], at place: Int) {
        let bucket = buckets.bucket(of: place)
        for (index, shares) in loads where !shares.isEmpty && shares.allSatisfy(\.isFinite) {
            var layer = layers.removeValue(forKey: index) ?? Layer(experts: shares.count, buckets: buckets.count)
            if layer.experts == shares.count {
                for (expert, share) in shares.enumerated() { layer.sums[bucket * layer.experts + expert] += share }
                layer.counts[bucket] += 1
            }
            layers[index] = layer
        }
    }
}

extension LoadHistory.Layer {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

    /// The shares as text, a column after the other: two digits of base 64 hold the square root of a share in 4095ths,
    /// so that small shares are as precise as large ones. Only an expert without any token has 0; `~~` is a gap.
    var cells: String {
        var text: [UInt8] = []
        text.reserveCapacity(2 * sums.count)
        for bucket in counts.indices {
            for expert in 0..<experts {
                guard let share = share(expert, in: bucket) else {
                    text += [UInt8(ascii: "~"), UInt8(ascii: "~")]
                    continue
                }
                let root = (4095 * min(max(share, 0), 1).squareRoot()).rounded()
                let code = share > 0 ? max(1, Int(root)) : 0
                text += [Self.digits[code / 64], Self.digits[code % 64]]
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
