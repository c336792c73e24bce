/// The values of one quantity over a run, in buckets of neighbouring steps: least, mean and most of each.
struct Curve {
    /// The mean of each bucket; `nil` where no step has a value.
    var means: [Double?] { zip(sums, counts).map { $1 > 0 ? $0 / Double($1) : nil } }
    /// The least of each bucket.
    private(set) var least: [Double?]
    /// The most of each bucket.
    private(set) var most: [Double?]
    private var sums: [Double]
    private var counts: [Int]

    /// A curve of `buckets` buckets without values.
    init(buckets: Int) {
        least = Array(repeating: nil, count: buckets)
        most = least
        sums = Array(repeating: 0, count: buckets)
        counts = Array(repeating: 0, count: buckets)
    }

    /// Whether there is no value at all.
    var isEmpty: Bool { counts.allSatisfy { $0 == 0 } }

    /// Adds a value; one that is missing or not finite is left out.
    mutating func add(_ value: Double?, to bucket: Int) {
        guard let value, value.isFinite else { return }
        least[bucket] = min(least[bucket] ?? value, value)
        most[bucket] = max(most[bucket] ?? value, value)
        sums[bucket] += value
        counts[bucket] += 1
    }
}

/// How a run's steps are put in buckets of equal size, as far as numbers allow.
struct Buckets {
    /// Steps of the run.
    let steps: Int
    /// Buckets; never more than steps.
    let count: Int

    /// At most `limit` buckets.
    init(steps: Int, limit: Int) {
        self.steps = steps
        count = max(1, min(steps, limit))
    }

    /// The bucket of the step at a place.
    func bucket(of place: Int) -> Int { place * count / steps }

    /// The places of the steps of a bucket.
    func places(of bucket: Int) -> Range<Int> { first(bucket)..<first(bucket + 1) }

    private func first(_ bucket: Int) -> Int { (bucket * steps + count - 1) / count }
}
