import ApusTraining

/// Adds up a run's lines as they are read, one by one.
struct RunCollector {
    /// Curves by the key that the page's program knows them by: that of `metrics.jsonl`, or of the load's shape.
    private(set) var curves: [String: Curve] = [:]
    /// The load of every expert.
    private(set) var loads: LoadHistory
    /// What the summary is made of.
    private(set) var totals = RunTotals()
    private let buckets: Buckets
    private let cells: Int
    private let steps: [Int]
    private var heldOutLosses: [(step: Int, value: Double)] = []

    private static let drawn: [Quantity] = [
        .loss, .balanceLoss, .zLoss, .droppedFraction, .gradientNorm, .learningRate, .tokensPerSecond, .mfu, .peakBytes,
    ]

    init(buckets: Buckets, cells: Int, steps: [Int]) {
        self.buckets = buckets
        self.cells = cells
        self.steps = steps
        loads = LoadHistory(buckets: Buckets(steps: steps.count, limit: 1))
    }

    /// Adds the line at a place among those that count.
    mutating func add(_ line: MetricsLine, at place: Int) {
        if place == 0 { loads = LoadHistory(buckets: Buckets(steps: steps.count, limit: columns(line))) }
        let bucket = buckets.bucket(of: place)
        for quantity in Self.drawn { add(line[quantity], to: quantity.rawValue, bucket) }
        if let value = line[.heldOutLoss], value.isFinite { heldOutLosses.append((steps[place], value)) }
        let shapes = line.loads.map { LoadShape($0.shares) }
        if !shapes.isEmpty {
            add(shapes.map(\.evenness).min(), to: "entropy", bucket)
            add(shapes.map(\.peakToMean).max(), to: "peak_to_mean", bucket)
            add(Double(shapes.reduce(0) { $0 + $1.deadExperts }), to: "dead_experts", bucket)
        }
        loads.add(line.loads, at: place)
        totals.add(line, step: steps[place])
    }

    /// The held-out losses; of more than `limit` every n-th and the last.
    func heldOut(limit: Int) -> [(step: Int, value: Double)] {
        let every = (heldOutLosses.count + limit - 1) / limit
        return heldOutLosses.indices.filter { (heldOutLosses.count - 1 - $0) % max(every, 1) == 0 }.map {
            heldOutLosses[$0]
        }
    }

    private mutating func add(_ value: Double?, to key: String, _ bucket: Int) {
        curves[key, default: Curve(buckets: buckets.count)].add(value, to: bucket)
    }

    /// Columns of the heat maps: as many as the cells allow, and no more than a screen is wide.
    private func columns(_ line: MetricsLine) -> Int {
        let experts = line.loads.reduce(0) { $0 + $1.shares.count }
        return max(16, min(400, cells / max(experts, 1)))
    }
}
