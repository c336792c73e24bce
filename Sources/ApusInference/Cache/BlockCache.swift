public import ApusKernels
public import ApusModels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens of a step, S sequences of a step, B tokens in a block, Hk key heads, H head width.

/// Keys and values of growing sequences in blocks of a few tokens, handed out as a sequence grows.
///
/// Blocks come back when a sequence ends (PagedAttention, Kwon et al. 2023, section 4).
///
/// 1. ``addSequence()`` makes an empty sequence.
/// 2. ``step(_:_:)`` reserves blocks for each sequence's new tokens and builds one block table, which all layers share.
/// 3. Each layer's ``append(layer:keys:values:)`` writes its new keys and values and gets the view over all.
/// 4. At the end of the step, once, the lengths advance; a step that fails leaves them as they were.
///
/// Of layers that convolve, each sequence keeps the last rows that they read (``extend(layer:rows:by:)``). Each other
/// layer has one tensor of keys and one of values, (blocks, B, Hk, H). They begin empty and grow by half, so memory
/// follows what is held; `limitTokens` bounds it.
public final class BlockCache: KeyValueStore {
    /// What the model asks of a cache.
    public struct Layout: Sendable, Equatable {
        /// Number of layers.
        public let layers: Int
        /// Hk.
        public let heads: Int
        /// H.
        public let headWidth: Int
        /// Type of keys and values.
        public let dtype: DType
        /// Layers without keys and values: those that convolve.
        public let keyless: Set<Int>

        /// A layout of its parts.
        public init(layers: Int, heads: Int, headWidth: Int, dtype: DType, keyless: Set<Int> = []) {
            self.layers = layers
            self.heads = heads
            self.headWidth = headWidth
            self.dtype = dtype
            self.keyless = keyless
        }

        /// What `model` needs.
        public init(_ model: Transformer) {
            self.init(
                layers: model.configuration.layers, heads: model.configuration.keyValueHeads,
                headWidth: model.configuration.cachedHeadWidth, dtype: model.store.precision.modelType,
                keyless: Set(model.configuration.convolution?.layers ?? []))
        }
    }

    /// Names a sequence of one cache.
    public struct SequenceID: Hashable, Sendable {
        fileprivate let number: Int
    }

    /// A sequence's part in a step.
    public struct Entry: Sendable {
        /// Which sequence; once in a step.
        public let sequence: SequenceID
        /// New tokens, at least one.
        public let tokens: Int

        /// A part in a step.
        public init(_ sequence: SequenceID, tokens: Int) {
            self.sequence = sequence
            self.tokens = tokens
        }
    }

    /// What is kept.
    public let layout: Layout
    /// B.
    public let blockSize: Int
    /// Most tokens that there may be room for, in whole blocks; `nil` for no limit but memory.
    public let limitTokens: Int?

    private struct Sequence {
        var blocks: [Int32] = []
        var length = 0
        /// The last rows that layers with a convolution have read, by layer.
        var rows: [Int: Tensor] = [:]
    }

    /// Consecutive tokens of a step that go to consecutive places of the pool.
    private struct Run {
        let tokens: Range<Int>
        let place: Int
    }

    private struct Step {
        let table: Tensor
        let lengths: Tensor
        let runs: [Run]
        let tokenCount: Int
        let entries: [Entry]
        var rowPlan: RowPlan?
        /// By layer, what is to be kept of each entry's rows.
        var rows: [Int: [Tensor]] = [:]
    }

    /// How often the layers' tensors were replaced by larger ones.
    private(set) var growths = 0
    let backend: any Backend
    private var pool: BlockPool
    /// Of each layer, (blocks, B, Hk, H); `nil` before the first step.
    private var keys: [Tensor?]
    private var values: [Tensor?]
    private var sequences: [SequenceID: Sequence] = [:]
    private var nextNumber = 0
    private var current: Step?

    /// The sizes that blocks may have.
    public static let blockSizes = 16...64

    /// An empty cache.
    ///
    /// - Parameters:
    ///   - blockSize: B, 16 ... 64: small blocks waste little at a sequence's end, large ones are read faster.
    ///   - limitTokens: Most tokens to make room for; rounded down to whole blocks.
    /// - Throws: ``InferenceError/invalidOption(name:value:expected:)``
    public init(_ layout: Layout, backend: any Backend, blockSize: Int = 16, limitTokens: Int? = nil)
        throws(InferenceError)
    {
        guard BlockCache.blockSizes.contains(blockSize) else {
            throw .invalidOption(name: "the cache's block size", value: "\(blockSize)", expected: "16 ... 64")
        }
        if let limitTokens, limitTokens < blockSize {
            throw .invalidOption(
                name: "the cache's limit", value: "\(limitTokens) tokens",
                expected: "at least one block of \(blockSize) tokens")
        }
        self.layout = layout
        self.backend = backend
        self.blockSize = blockSize
        let limit = limitTokens.map { $0 / blockSize }
        self.limitTokens = limit.map { $0 * blockSize }
        pool = BlockPool(blockSize: blockSize, limit: limit)
        keys = Array(repeating: nil, count: layout.layers)
        values = keys
    }

    /// Tokens there is memory for now.
    public var capacityTokens: Int { pool.count * blockSize }
    /// Blocks that sequences have.
    public var usedBlocks: Int { pool.count - pool.free.count }
    /// Blocks that `tokens` tokens of one sequence take.
    public func blocks(for tokens: Int) -> Int { pool.blocks(for: tokens) }

    /// A new sequence without tokens.
    public func addSequence() -> SequenceID {
        let id = SequenceID(number: nextNumber)
        nextNumber += 1
        sequences[id] = Sequence()
        return id
    }

    /// Forgets a sequence; its blocks are free for others.
    public func remove(_ id: SequenceID) {
        precondition(current == nil, "sequences are removed between steps")
        guard let sequence = sequences.removeValue(forKey: id) else {
            preconditionFailure("the sequence was removed before")
        }
        pool.give(sequence.blocks)
    }

    /// Tokens kept of a sequence.
    public func length(of id: SequenceID) -> Int { sequence(id).length }

    /// Block numbers of a sequence, in the order of its tokens.
    func blocks(of id: SequenceID) -> [Int32] { sequence(id).blocks }

    private func sequence(_ id: SequenceID) -> Sequence {
        guard let sequence = sequences[id] else { preconditionFailure("the sequence was removed before") }
        return sequence
    }

    /// Runs `body`, a forward pass over the new tokens of `entries`, in their order.
    ///
    /// It gets the tokens' layout, and every layer in it appends once.
    ///
    /// - Throws: ``InferenceError/cacheFull(neededTokens:heldTokens:limitTokens:)`` or
    ///   ``TensorError/outOfMemory(requested:purpose:statistics:limit:)`` before `body` runs, or what `body` throws; the
    ///   sequences are then as they were.
    public func step<Result>(_ entries: [Entry], _ body: (TokenLayout) throws -> Result) throws -> Result {
        precondition(current == nil, "one step at a time")
        let starts = entries.map { sequence($0.sequence).length }
        let before = entries.map { sequence($0.sequence).blocks.count }
        try makeRoom(entries)
        for entry in entries { extend(entry) }
        do {
            current = try plan(entries)
            defer { current = nil }
            let tokens = try TokenLayout.sequences(
                entries.map(\.tokens), startingAt: starts, backend: backend)
            let result = try body(tokens)
            for entry in entries { sequences[entry.sequence]?.length += entry.tokens }
            for (layer, rows) in current?.rows ?? [:] {
                for (entry, kept) in zip(entries, rows) { sequences[entry.sequence]?.rows[layer] = kept }
            }
            return result
        } catch {
            for (entry, count) in zip(entries, before) {
                let extra = sequence(entry.sequence).blocks[count...]
                pool.give(extra)
                sequences[entry.sequence]?.blocks.removeLast(extra.count)
            }
            throw error
        }
    }

    /// Gives each of `sequences` the block that one token more needs, for a step that the cache does not run itself.
    ///
    /// - Returns: whether any got one.
    /// - Throws: as ``step(_:_:)``; the sequences are then as they were.
    func makeRoom(for sequences: [SequenceID]) throws -> Bool {
        let entries = sequences.map { Entry($0, tokens: 1) }
        try makeRoom(entries)
        let before = usedBlocks
        for entry in entries { extend(entry) }
        return usedBlocks > before
    }

    /// Counts the token that such a step has added to each of `sequences`.
    func lengthen(_ sequences: [SequenceID]) {
        for id in sequences { self.sequences[id]?.length += 1 }
    }

    /// A layer's keys and values, (blocks, B, Hk, H).
    func blocks(layer: Int) -> (keys: Tensor, values: Tensor) {
        guard let keptKeys = keys[layer], let keptValues = values[layer] else {
            preconditionFailure("a step has room")
        }
        return (keptKeys, keptValues)
    }

    /// The same as one run of tokens, (blocks B, Hk, H).
    func places(layer: Int) -> (keys: Tensor, values: Tensor) {
        let (keys, values) = blocks(layer: layer)
        let tokens = keys.shape[0] * blockSize
        return (
            keys.reshaped(tokens, layout.heads, layout.headWidth),
            values.reshaped(tokens, layout.heads, layout.headWidth)
        )
    }

    /// Writes a layer's new keys and values (T, Hk, H) into their blocks; only inside ``step(_:_:)``.
    public func append(layer: Int, keys: Tensor, values: Tensor) throws -> KVView {
        guard let current else { preconditionFailure("keys are appended inside a step") }
        precondition(
            keys.shape == Shape(current.tokenCount, layout.heads, layout.headWidth) && keys.shape == values.shape
                && keys.dtype == layout.dtype,
            "keys \(keys.shape) \(keys.dtype) for \(current.tokenCount) tokens of \(layout)")
        let (keptKeys, keptValues) = blocks(layer: layer)
        let (keyPlaces, valuePlaces) = self.places(layer: layer)
        for (new, places) in [(keys, keyPlaces), (values, valuePlaces)] {
            for run in current.runs {
                try backend.copy(new[run.tokens], into: places[run.place..<run.place + run.tokens.count])
            }
        }
        return KVView(
            keys: keptKeys, values: keptValues, layout: .blocks(table: current.table, lengths: current.lengths))
    }

    /// The step's plan for rows of `layer`, and what is kept of each of its sequences.
    func rowPlan(layer: Int, by earlier: Int) throws -> (plan: RowPlan, kept: [Tensor?]) {
        guard let current else { preconditionFailure("rows are extended inside a step") }
        let sequences = current.entries.map { sequence($0.sequence) }
        let kept = sequences.map { $0.rows[layer] }
        if let plan = current.rowPlan, plan.earlier == earlier { return (plan, kept) }
        let plan = try makeRowPlan(
            lengths: sequences.map(\.length), new: current.entries.map(\.tokens), by: earlier)
        self.current?.rowPlan = plan
        return (plan, kept)
    }

    /// What is kept of the entries' rows when the step has ended.
    func keepRows(_ rows: [Tensor], layer: Int) { current?.rows[layer] = rows }

    /// Grows the layers' tensors, if need be, so that every entry gets its blocks.
    private func makeRoom(_ entries: [Entry]) throws {
        let needed = entries.reduce(0) { sum, entry in
            let sequence = sequence(entry.sequence)
            return sum + pool.blocks(for: sequence.length + entry.tokens) - sequence.blocks.count
        }
        guard let size = pool.size(toHandOut: needed) else {
            throw InferenceError.cacheFull(
                neededTokens: needed * blockSize, heldTokens: usedBlocks * blockSize, limitTokens: limitTokens ?? .max)
        }
        guard size > pool.count else { return }
        // One tensor after another, the old one let go at once: no more than one exists twice. Where memory runs out
        // between, some tensors have more blocks than the pool knows of, which hurts nobody.
        for layer in 0..<layout.layers where !layout.keyless.contains(layer) {
            try grow(&keys[layer], to: size)
            try grow(&values[layer], to: size)
        }
        pool.grow(to: size)
        growths += 1
    }

    private func grow(_ tensor: inout Tensor?, to size: Int) throws {
        let blocks = tensor?.shape[0] ?? 0
        guard blocks < size else { return }
        let grown = try backend.empty(
            Shape(size, blockSize, layout.heads, layout.headWidth), layout.dtype, .keyValueCache)
        if let tensor { try backend.copy(tensor, into: grown[0..<blocks]) }
        // Attention weighs what lies behind a sequence's end by nought: it must be a number.
        try backend.fill(grown[blocks..<size], with: 0)
        tensor = grown
    }

    private func extend(_ entry: Entry) {
        precondition(entry.tokens > 0, "a sequence in a step has new tokens")
        var sequence = sequence(entry.sequence)
        while sequence.blocks.count < pool.blocks(for: sequence.length + entry.tokens) {
            sequence.blocks.append(pool.take())
        }
        sequences[entry.sequence] = sequence
    }

    /// The table, the lengths and the places of the new tokens, once for all layers.
    private func plan(_ entries: [Entry]) throws -> Step {
        precondition(Set(entries.map(\.sequence)).count == entries.count, "a sequence is once in a step")
        let parts = entries.map { sequence($0.sequence) }
        let width = parts.map(\.blocks.count).max() ?? 0
        var table = [Int32](repeating: 0, count: parts.count * width)
        var lengths: [Int32] = []
        var runs: [Run] = []
        var first = 0
        for (row, (part, entry)) in zip(parts, entries).enumerated() {
            table.replaceSubrange(row * width..<row * width + part.blocks.count, with: part.blocks)
            lengths.append(Int32(part.length + entry.tokens))
            for index in 0..<entry.tokens {
                let position = part.length + index
                let place = Int(part.blocks[position / blockSize]) * blockSize + position % blockSize
                if let last = runs.last, last.place + last.tokens.count == place, index > 0 {
                    runs[runs.count - 1] = Run(tokens: last.tokens.lowerBound..<first + index + 1, place: last.place)
                } else {
                    runs.append(Run(tokens: first + index..<first + index + 1, place: place))
                }
            }
            first += entry.tokens
        }
        // One upload for both.
        let both = try backend.tensor(table + lengths, Shape(table.count + lengths.count), .workspace)
        return Step(
            table: both[0..<table.count].reshaped(parts.count, width), lengths: both[table.count..<both.count],
            runs: runs, tokenCount: first, entries: entries)
    }
}
