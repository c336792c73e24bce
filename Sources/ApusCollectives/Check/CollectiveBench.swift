public import ApusTensor

/// How fast a communicator's operations are, by size.
///
/// All ranks run the same operations; a time is that of the rank where it was longest. An operation is started when the one
/// before it is over; those of a device are queued and waited for together, as its work is.
public struct CollectiveBench {
    /// What is measured.
    public enum Kind: String, Sendable, CaseIterable {
        /// A sum over all ranks, for all of them.
        case allReduce = "all-reduce"
        /// A sum over all ranks, a part for each.
        case reduceScatter = "reduce-scatter"
        /// Every rank's part, for all of them.
        case allGather = "all-gather"
        /// One rank's bytes, for all of them.
        case broadcast
        /// A part from every rank to every rank, all of one size.
        case allToAll = "all-to-all"
        /// As many bytes from and to each rank as in ``allToAll``, in parts of sizes 1 : 2 : ... : N - 1 for the others.
        case allToAllUneven = "uneven all-to-all"
        /// To the next rank, from the one before.
        case sendReceive = "send and receive"
    }

    /// The measured speed of an operation at one size.
    public struct Result: Sendable, Equatable {
        /// The operation.
        public let kind: Kind
        /// Number of ranks.
        public let ranks: Int
        /// Bytes of the larger of a rank's input and output, of the sizes asked for the nearest that all ranks can share.
        public let byteCount: Int
        /// Seconds of one operation: the median over rounds.
        public let seconds: Double
        /// Seconds in the fastest round.
        public let fastest: Double
        /// Seconds in the slowest round.
        public let slowest: Double
        /// Number of rounds.
        public let rounds: Int

        /// ``byteCount`` in each second.
        public var algorithmBandwidth: Double { seconds > 0 ? Double(byteCount) / seconds : 0 }

        /// Bytes a second that a rank's link carries at least, whatever the number of ranks: the definitions of NVIDIA's
        /// nccl-tests. Of an all-reduce 2 (N - 1) / N of ``algorithmBandwidth``, of a broadcast and of send and receive
        /// all of it, (N - 1) / N of the others.
        public var busBandwidth: Double {
            let others = Double(ranks - 1) / Double(ranks)
            return switch kind {
            case .allReduce: 2 * others * algorithmBandwidth
            case .reduceScatter, .allGather, .allToAll, .allToAllUneven: others * algorithmBandwidth
            case .broadcast, .sendReceive: algorithmBandwidth
            }
        }
    }

    /// 1 KiB to 64 MiB, each four times the one before.
    public static let usualSizes = (0...8).map { 1 << (10 + 2 * $0) }

    /// Fewest rounds of a measurement, and most.
    static let rounds = 5...25

    let collective: any Collective
    let control: any Collective
    let stream: Stream
    let elements: (Int) throws -> Tensor

    /// A bench of `collective`, in host memory.
    public init(of collective: any Collective) {
        let memory = CachingAllocator()
        self.init(of: collective, control: collective, stream: .cpu) { count in
            let tensor = try memory.empty(Shape(count), .f32, .data)
            tensor.pointer(to: Float.self).update(repeating: 1, count: count)
            return tensor
        }
    }

    /// A bench of `collective` in a device's memory.
    ///
    /// - Parameters:
    ///   - control: The same ranks, over host memory: it carries times.
    ///   - stream: Where the device's work goes.
    ///   - elements: Makes a tensor (n) `f32` of ones where `collective` takes it.
    public init(
        of collective: any Collective, control: any Collective, stream: Stream,
        elements: @escaping (_ count: Int) throws -> Tensor
    ) {
        self.collective = collective
        self.control = control
        self.stream = stream
        self.elements = elements
    }

    /// Measures operations at sizes; every rank calls this.
    ///
    /// - Parameters:
    ///   - sizes: Bytes.
    ///   - seconds: About how long to repeat each.
    ///   - report: Called with each result as soon as it is known.
    /// - Returns: All results, the same on every rank, by operation and size. A single rank has no send and receive.
    /// - Throws: ``CollectiveError``, ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``.
    public func run(
        _ kinds: [Kind] = Kind.allCases, sizes: [Int] = usualSizes, seconds: Double = 0.2,
        report: (Result) -> Void = { _ in }
    ) throws -> [Result] {
        let kinds = kinds.filter { collective.size > 1 || $0 != .sendReceive }
        // What is compared is measured in turn, so that a drift of the machine favours neither.
        let pair: [Kind] = [.allToAll, .allToAllUneven]
        let groups =
            pair.allSatisfy(kinds.contains)
            ? kinds.filter { !pair.contains($0) }.map { [$0] } + [pair] : kinds.map { [$0] }
        var results: [Kind: [Result]] = [:]
        for group in groups {
            for size in sizes {
                for result in try measure(group, byteCount: size, seconds: seconds) {
                    report(result)
                    results[result.kind, default: []].append(result)
                }
            }
        }
        return kinds.flatMap { results[$0] ?? [] }
    }

    /// How long an uneven all-to-all takes beside an even one of as many bytes, by bytes.
    public static func unevenRatios(_ results: [Result]) -> [(byteCount: Int, ratio: Double)] {
        results.filter { $0.kind == .allToAllUneven }.compactMap { uneven in
            let even = results.first { $0.kind == .allToAll && $0.byteCount == uneven.byteCount }
            return even.map { (uneven.byteCount, uneven.seconds / $0.seconds) }
        }
    }
}
