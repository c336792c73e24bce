import ApusParallel

// Shape letters: T tokens, E experts, K choices per token, C capacity, N ranks of an expert group, P ranks of a tensor
// group.

/// How many rows of a layer one rank sends, receives and computes in a pass.
///
/// Where duplicates are dropped (DeepSpeed-TED section 5.1) these are the rows of the rank's P-th part.
public struct RoutedLoad: Sendable, Equatable {
    /// Rows that the rank sends to experts.
    public let sent: Int
    /// Rows that it receives for its experts.
    public let received: Int
    /// Rows that its experts' products exchange over the tensor group: those received, or P times the most that a rank
    /// of the tensor group received.
    public let gathered: Int
    /// Integers by which it announces rows to the others; 0 when they know.
    public let announced: Int

    /// Rows of which these many move.
    public init(sent: Int, received: Int, gathered: Int, announced: Int) {
        self.sent = sent
        self.received = received
        self.gathered = gathered
        self.announced = announced
    }

    /// Rows padded to the capacity: every rank sends and receives as many, E C or their P-th part, and knows it.
    ///
    /// - Parameters:
    ///   - capacity: C, over all routing groups of the pass.
    ///   - experts: E.
    ///   - expertDegree: N; with N above E each row goes to N / E slices of its expert.
    ///   - parts: P where duplicates are dropped, else 1.
    public static func padded(capacity: Int, experts: Int, expertDegree: Int, parts: Int) -> RoutedLoad {
        let rows = max(experts, expertDegree) * ((capacity + parts - 1) / parts)
        return RoutedLoad(sent: rows, received: rows, gathered: parts * rows, announced: 0)
    }

    /// Rows as they were chosen, without padding.
    ///
    /// - Parameters:
    ///   - choices: (T, K) of each rank of the expert group, by its place in it: experts, negative where dropped.
    ///   - place: This rank's place.
    ///   - part: This rank's part of the tokens; `nil` where every rank of the tensor group sends all.
    public static func chosen(
        _ choices: [[Int32]], perToken: Int, experts: Int, place: Int, part: Part?
    ) -> RoutedLoad {
        let share = ExpertShare(place: place, degree: choices.count, experts: experts)
        let histograms = (0..<(part?.count ?? 1)).map { index in
            choices.map { ids in
                let tokens = ids.count / perToken
                let length = part.map { (tokens + $0.count - 1) / $0.count } ?? tokens
                let own = min(index * length, tokens)..<min((index + 1) * length, tokens)
                return ids[own.lowerBound * perToken..<own.upperBound * perToken].reduce(
                    into: Array(repeating: 0, count: experts)
                ) { if $1 >= 0 { $0[Int($1)] += 1 } }
            }
        }
        let own = part?.index ?? 0
        let arrived = histograms.map { sources in sources.reduce(0) { $0 + $1[share.experts].reduce(0, +) } }
        return RoutedLoad(
            sent: share.slices * histograms[own][place].reduce(0, +), received: arrived[own],
            gathered: arrived.count * (arrived.max() ?? 0),
            announced: choices.count * share.experts.count * arrived.count)
    }

    /// One of the equal parts that the ranks of a tensor group have of the tokens that all of them hold.
    public struct Part: Sendable, Equatable {
        /// Which.
        public let index: Int
        /// P.
        public let count: Int

        /// Part `index` of `count`.
        public init(index: Int, count: Int) {
            precondition((0..<count).contains(index), "part \(index) of \(count)")
            self.index = index
            self.count = count
        }
    }
}
