public import ApusKernels
public import ApusTensor

// Shape letters: N rows, V vocabulary.

/// Chooses tokens from logits.
///
/// A draw is a function of the seed, the sequence's own index and the position alone: who else is in the batch, and how
/// the work was cut, change no draw.
public struct Sampler: Sendable {
    /// How tokens are chosen.
    public let options: SamplingOptions

    /// A row's place: what its draw is keyed by.
    public struct Place: Sendable, Equatable {
        /// The sequence's index, given by whoever asked for it and not by its place in a batch.
        public let sequence: Int
        /// The place in the sequence of the token to be chosen.
        public let position: Int

        /// A place.
        public init(sequence: Int, position: Int) {
            self.sequence = sequence
            self.position = position
        }
    }

    /// - Throws: ``InferenceError/invalidOption(name:value:expected:)``
    public init(_ options: SamplingOptions) throws(InferenceError) {
        try options.validate()
        self.options = options
    }

    /// One id for each row of logits (N, V) `f32`; equal logits go to the lower id.
    ///
    /// - Throws: ``InferenceError/unusableLogits(sequence:position:id:value:)`` for NaN, for positive infinity, and when
    ///   all are negative infinity.
    public func choose(_ logits: Tensor, _ places: [Place], _ backend: any Backend) throws -> [Int32] {
        precondition(logits.shape.rank == 2 && logits.shape[0] == places.count)
        if options.isGreedy {
            let choices = try backend.empty(Shape(places.count, 2), .i32, .workspace)
            try backend.argMax(logits, into: choices)
            return try Sampler.ids(backend.download(choices), rows: Array(places.indices), places)
        }
        let host = try backend.download(logits)
        try host.ready?.wait()
        return try withExtendedLifetime(host.storage) {
            let first = host.pointer(to: Float.self)
            return try places.enumerated().map { row, place in
                try choose(UnsafeBufferPointer(start: first + row * host.rowStride, count: host.shape[1]), place)
            }
        }
    }

    /// The ids of some rows of what ``DecodeOp/argMax(_:into:)`` has chosen, (N, 2) on the host as soon as it is ready.
    ///
    /// - Throws: as ``choose(_:_:_:)``.
    static func ids(_ choices: Tensor, rows: [Int], _ places: [Place]) throws -> [Int32] {
        try choices.ready?.wait()
        let words = choices.array(of: Int32.self)
        return try zip(rows, places).map { row, place in
            let value = Float(bitPattern: UInt32(bitPattern: words[2 * row + 1]))
            guard value.isFinite else { throw unusable(place, Int(words[2 * row]), value) }
            return words[2 * row]
        }
    }

    private func choose(_ logits: UnsafeBufferPointer<Float>, _ place: Place) throws(InferenceError) -> Int32 {
        let best = try Sampler.highest(of: logits, place)
        return Candidates(logits, highest: logits[Int(best)], options).pick(at: draw(place))
    }

    /// The id of the highest logit.
    private static func highest(of logits: UnsafeBufferPointer<Float>, _ place: Place) throws(InferenceError) -> Int32 {
        var best = 0
        for (id, value) in logits.enumerated() {
            guard value < .infinity else { throw unusable(place, id, value) }
            if value > logits[best] { best = id }
        }
        guard logits[best].isFinite else { throw unusable(place, best, logits[best]) }
        return Int32(best)
    }

    private static func unusable(_ place: Place, _ id: Int, _ value: Float) -> InferenceError {
        .unusableLogits(sequence: place.sequence, position: place.position, id: Int32(id), value: value)
    }

    /// Uniform inside (0, 1), of two words: one alone has 23 bits, too few for the rare tokens of a large vocabulary.
    ///
    /// The words are those of a uniform fill, but need no device.
    func draw(_ place: Place) -> Double {
        let stream = RandomStream(seed: options.seed, purpose: .sampling, step: place.sequence)
        let first = UInt64(2 * place.position)
        let (coarse, fine) = (stream.word(at: first) >> 9, stream.word(at: first + 1) >> 9)
        let interval = 0x1p-23
        return (Double(coarse) + (Double(fine) + 0.5) * interval) * interval
    }
}
