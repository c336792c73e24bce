public import ApusTensor

/// Tries every operation over the ranks of a communicator: whether each element is what it should be, and how long it
/// takes.
///
/// All ranks run the same checks and get the same outcomes. What is expected is computed from the ranks' numbers alone,
/// without a message.
public struct CollectiveCheck: Sendable {
    /// What an operation is called: `all-reduce`.
    public let name: String
    /// Type of the elements that it is tried with.
    public let dtype: DType
    /// The operation over `size` ranks, of about as many bytes as wanted.
    let make: @Sendable (_ seat: Seat, _ memory: CachingAllocator, _ byteCount: Int) throws -> Trial

    /// Who tries.
    struct Seat: Sendable {
        let rank: Int
        let size: Int
    }

    /// One rank's operations, and what must be in the output then.
    struct Trial {
        /// What is started together; all but one are of the neighbours' sends.
        let operations: [CollectiveOperation]
        let output: Tensor?
        let expected: @Sendable (Int) -> Int
    }

    /// What a check found, over all ranks.
    public struct Outcome: Sendable, Equatable {
        /// ``CollectiveCheck/name``.
        public let name: String
        /// ``CollectiveCheck/dtype``.
        public let dtype: DType
        /// Bytes that each rank contributes; for an all-gather, those that it receives.
        public let byteCount: Int
        /// Mean time of one operation, on the rank where it took longest.
        public let seconds: Double
        /// Elements that were wrong, by rank; of what is not checked by element, operations.
        public let wrongByRank: [Int]

        /// Elements that were wrong, on all ranks together.
        public var wrong: Int { wrongByRank.reduce(0, +) }
        /// Whether every element was right.
        public var passes: Bool { wrong == 0 }
        /// ``byteCount`` in each second.
        public var bytesPerSecond: Double { seconds > 0 ? Double(byteCount) / seconds : 0 }
    }

    /// Bytes that operations are tried with unless others are wanted: from what latency rules to what bandwidth rules.
    public static let usualSizes = [1 << 10, 1 << 16, 1 << 20, 1 << 24]

    /// Runs all checks on a communicator; every rank calls this.
    ///
    /// - Parameters:
    ///   - collective: The ranks to try.
    ///   - sizes: Bytes of each operation; barriers and the like come once.
    ///   - seconds: About how long to repeat each operation for its time.
    ///   - place: Where the tensors are; `nil` for host memory, by which the ranks agree in any case.
    ///   - report: Called with each outcome as soon as it is known.
    /// - Returns: All outcomes, the same on every rank.
    /// - Throws: ``CollectiveError``, ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``.
    public static func run(
        on collective: any Collective, sizes: [Int] = usualSizes, seconds: Double = 0.05, at place: TensorPlace? = nil,
        report: (Outcome) -> Void = { _ in }
    ) throws -> [Outcome] {
        let memory = CachingAllocator()
        let place = place ?? .host
        var outcomes: [Outcome] = []
        for check in all(size: collective.size, inRankOrder: place.addsInRankOrder) {
            for size in check.name == "barrier" ? [0] : sizes {
                let outcome = try check.run(on: collective, memory, place, byteCount: size, seconds: seconds)
                report(outcome)
                outcomes.append(outcome)
            }
        }
        let together = try manyAtOnce(on: collective, memory, place)
        report(together)
        return outcomes + [together]
    }

    private func run(
        on collective: any Collective, _ memory: CachingAllocator, _ place: TensorPlace, byteCount: Int, seconds: Double
    ) throws -> Outcome {
        let trial = try make(Seat(rank: collective.rank, size: collective.size), memory, byteCount)
        let (operations, result) = try place.moved(trial.operations, trial.output)
        let perform = {
            let events = try operations.map { try collective.start($0, after: place.stream, layer: nil) }
            for event in events { try event.wait() }
        }
        try perform()
        var wrong = 0
        if let output = try result.map(place.fetch) {
            for (index, value) in output.checkedNumbers.enumerated() where value != trial.expected(index) { wrong += 1 }
        }
        // The number of repetitions must be the same on every rank: the first one's time, on the slowest, gives it.
        let first = try collective.largest(try measured(1, perform), memory)
        let repetitions = max(1, min(1000, Int(seconds / max(first, 1e-6))))
        try collective.barrier()
        let time = try collective.largest(try measured(repetitions, perform), memory)
        return Outcome(
            name: name, dtype: dtype, byteCount: trial.operations.first?.byteCount ?? 0, seconds: time,
            wrongByRank: try collective.byRank(wrong, memory))
    }

    /// Mean seconds of one call.
    private func measured(_ repetitions: Int, _ body: () throws -> Void) throws -> Double {
        let start = ContinuousClock.now
        for _ in 0..<repetitions { try body() }
        return Double(start.duration(to: .now).microseconds) / 1e6 / Double(repetitions)
    }
}

extension Collective {
    /// Every rank's count, by rank.
    func byRank(_ count: Int, _ memory: CachingAllocator) throws -> [Int] {
        let counts = try memory.empty(Shape(size), .i32, .data)
        try allGather(try memory.tensor([Int32(clamping: count)], Shape(1)), into: counts)
        return counts.array(of: Int32.self).map(Int.init)
    }

    /// The largest of all ranks' seconds.
    fileprivate func largest(_ seconds: Double, _ memory: CachingAllocator) throws -> Double {
        let tensor = try memory.tensor([Float(seconds)], Shape(1))
        try allReduce(tensor, .max, into: tensor)
        return Double(tensor.floats()[0])
    }
}

extension Tensor {
    /// The elements as whole numbers; one that is none is a number that no check expects.
    fileprivate var checkedNumbers: [Int] {
        switch dtype {
        case .f32, .bf16: floats().map { Int(exactly: $0) ?? .min }
        case .i32: array(of: Int32.self).map(Int.init)
        case .u8: array(of: UInt8.self).map(Int.init)
        }
    }
}
