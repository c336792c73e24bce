public import ApusTensor

// Shape letters: N rows, V vocabulary, S sequences, T tokens, B tokens in a block, Hk key heads, H head width.

/// Sequences that grow by one token a step, as a device keeps them from one step to the next.
public struct DecodeState: Sendable {
    /// (S, 2) `i32`: what ``DecodeOp/argMax(_:into:)`` chose last; the ids are the next tokens.
    public let choices: Tensor
    /// (S) `i32`: the tokens of the step.
    public let tokens: Tensor
    /// (S) `i32`: their positions.
    public let positions: Tensor
    /// (S) `i32`: where their keys go, in tokens from the start of the blocks.
    public let places: Tensor
    /// (S) `i32`: tokens that the blocks hold of each sequence, those of the step included.
    public let lengths: Tensor
    /// (S, blocks) `i32`: the blocks of each sequence.
    public let table: Tensor

    /// A state made of its parts.
    public init(
        choices: Tensor, tokens: Tensor, positions: Tensor, places: Tensor, lengths: Tensor, table: Tensor
    ) {
        self.choices = choices
        self.tokens = tokens
        self.positions = positions
        self.places = places
        self.lengths = lengths
        self.table = table
    }
}

/// What a step of generation does besides the model, without the host.
public protocol DecodeOp {
    /// `choices` (N, 2) `i32`: the id of the highest of each row of logits (N, V) `f32`, equal ones to the lower id, and
    /// that logit's bits. Where a logit is NaN or positive infinity it is the first such.
    func argMax(_ logits: Tensor, into choices: Tensor) throws
    /// The next step of each sequence: `tokens` from `choices`, `positions` and `places` from `lengths`, which grow by one.
    func beginDecodeStep(_ state: DecodeState, blockSize: Int) throws
    /// Row `places[t]` of `keptKeys` and `keptValues` (places, Hk, H) `= ` row t of `keys` and `values` (T, Hk, H).
    func storeKeys(_ keys: Tensor, _ values: Tensor, places: Tensor, keptKeys: Tensor, keptValues: Tensor) throws
}

extension CPUBackend: DecodeOp {
    public func argMax(_ logits: Tensor, into choices: Tensor) throws {
        try logits.waitUntilReady()
        let target = choices.pointer(to: Int32.self)
        let width = logits.shape[1]
        overRows(logits.shape[0], width: width) { range in
            for row in range {
                let values = logits[row..<row + 1].pointer(to: Float.self)
                var best = 0
                for id in 0..<width {
                    guard values[id] < .infinity else {
                        best = id
                        break
                    }
                    if values[id] > values[best] { best = id }
                }
                target[2 * row] = Int32(best)
                target[2 * row + 1] = Int32(bitPattern: values[best].bitPattern)
            }
        }
    }

    public func beginDecodeStep(_ state: DecodeState, blockSize: Int) throws {
        let (choices, table) = (state.choices.pointer(to: Int32.self), state.table.pointer(to: Int32.self))
        let lengths = state.lengths.pointer(to: Int32.self)
        for sequence in 0..<state.tokens.count {
            let position = Int(lengths[sequence])
            let block = Int(table[sequence * state.table.rowStride + position / blockSize])
            state.tokens.pointer(to: Int32.self)[sequence] = choices[2 * sequence]
            state.positions.pointer(to: Int32.self)[sequence] = Int32(position)
            state.places.pointer(to: Int32.self)[sequence] = Int32(block * blockSize + position % blockSize)
            lengths[sequence] += 1
        }
    }

    public func storeKeys(
        _ keys: Tensor, _ values: Tensor, places: Tensor, keptKeys: Tensor, keptValues: Tensor
    ) throws {
        try keys.waitUntilReady()
        try values.waitUntilReady()
        for (token, place) in places.array(of: Int32.self).enumerated() {
            for (source, target) in [(keys, keptKeys), (values, keptValues)] {
                try copy(source[token..<token + 1], into: target[Int(place)..<Int(place) + 1])
            }
        }
    }
}
