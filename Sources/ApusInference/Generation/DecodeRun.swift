import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

// Shape letters: S sequences, V vocabulary, T tokens of a step, Hk key heads, H head width.

/// Steps of one token for each of the same sequences, always the highest logit, without the host between them.
///
/// 1. The chosen tokens are the next step's input where they are; lengths, positions and places of keys follow on the
///    device.
/// 2. The ops of a step are recorded once and repeated: all that changes from step to step is in tensors.
/// 3. The host enqueues a step before it reads what the last one chose.
///
/// The cache's blocks are given out ahead of each step; when the cache grows its tensors are others, and a step is
/// recorded anew.
final class DecodeRun: KeyValueStore {
    private let model: Transformer
    private let backend: any Backend
    private let cache: BlockCache
    private let sequences: [BlockCache.SequenceID]
    private let state: DecodeState
    private let layout: TokenLayout
    private var work: (any RecordedWork)?
    /// The cache's tensors that ``work`` writes.
    private var pools: Int?
    private var stepsTaken = 0
    /// How often a step was recorded.
    private(set) var records = 0

    /// Steps that run as they are before one is recorded: the device then has done all of it, and a short run is not
    /// worth a record.
    private static let plainSteps = 2

    /// A run over `sequences` of `cache`, whose next tokens are `tokens`, and which will have `mostTokens` tokens at most.
    init(
        _ model: Transformer, _ backend: any Backend, _ cache: BlockCache, _ sequences: [BlockCache.SequenceID],
        tokens: [Int32], mostTokens: Int
    ) throws {
        self.model = model
        self.backend = backend
        self.cache = cache
        self.sequences = sequences
        let count = sequences.count
        let lengths = sequences.map { Int32(cache.length(of: $0)) }
        state = DecodeState(
            choices: try backend.tensor(tokens.flatMap { [$0, 0] }, Shape(count, 2)),
            tokens: try backend.empty(Shape(count), .i32, .data),
            positions: try backend.empty(Shape(count), .i32, .data),
            places: try backend.empty(Shape(count), .i32, .data), lengths: try backend.tensor(lengths, Shape(count)),
            table: try backend.empty(Shape(count, cache.blocks(for: mostTokens)), .i32, .data))
        layout = TokenLayout(
            cumulativeLengths: try backend.tensor((0...Int32(count)).map { $0 }, Shape(count + 1)),
            positions: state.positions, routingGroups: (0..<count).map { $0..<$0 + 1 })
    }

    /// Enqueues the next step of every sequence.
    ///
    /// - Returns: (S, 2) `i32` on the host, once it is ready: what each row of logits gave, see ``DecodeOp/argMax(_:into:)``.
    func step() throws -> Tensor {
        if try cache.makeRoom(for: sequences) || stepsTaken == 0 { try uploadTable() }
        if pools != cache.growths { work = nil }
        if stepsTaken >= DecodeRun.plainSteps, work == nil {
            pools = cache.growths
            records += 1
            work = try backend.record { [unowned self] in try self.run() }
        }
        if let work { try work.run() } else { try run() }
        cache.lengthen(sequences)
        stepsTaken += 1
        // The next step writes over it, perhaps before this one is read.
        let choices = try backend.empty(state.choices.shape, .i32, .data)
        try backend.copy(state.choices, into: choices)
        return try backend.download(choices)
    }

    private func run() throws {
        try backend.beginDecodeStep(state, blockSize: cache.blockSize)
        let tape = Tape(backend: backend, isRecording: false)
        let context = MoEContext(
            forward: ForwardContext(tape: tape, layout: layout, keyValues: self), countsLoads: false)
        try backend.argMax(model.logits(tokens: state.tokens, context), into: state.choices)
    }

    func append(layer: Int, keys: Tensor, values: Tensor) throws -> KVView {
        let (keptKeys, keptValues) = cache.places(layer: layer)
        try backend.storeKeys(keys, values, places: state.places, keptKeys: keptKeys, keptValues: keptValues)
        let (keyBlocks, valueBlocks) = cache.blocks(layer: layer)
        return KVView(keys: keyBlocks, values: valueBlocks, layout: .blocks(table: state.table, lengths: state.lengths))
    }

    /// Never called: ``Generator`` records no steps of a model that convolves.
    func extend(layer: Int, rows: Tensor, by earlier: Int) throws -> ExtendedRows {
        preconditionFailure("the rows of layer \(layer) are kept by sequences, which a recorded step cannot follow")
    }

    private func uploadTable() throws {
        let width = state.table.shape[1]
        let rows = sequences.flatMap { sequence in
            let blocks = cache.blocks(of: sequence)
            return blocks + Array(repeating: 0, count: width - blocks.count)
        }
        try backend.upload(rows, into: state.table)
    }
}
