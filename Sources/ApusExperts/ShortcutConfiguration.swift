/// From where the routed experts of a block read when it is an earlier place than the block's own post-attention state
/// (ScMoE, Cai et al. 2024, arXiv 2404.05019): their tokens can travel while the blocks in between compute.
public struct ShortcutConfiguration: Sendable, Equatable {
    /// The places, counted back from the block, by the paper's numbers.
    public enum Position: Int, Sendable, CaseIterable {
        /// The output of the block before, which is the block's own input.
        case output = 1
        /// The state of the block before between its attention and its feed-forward layer.
        case attention = 2
        /// The input of the block before.
        case input = 3

        /// How many blocks must stand before the one that reads from here.
        public var precedingBlocks: Int { self == .output ? 0 : 1 }
    }

    /// Where the experts read.
    public var position: Position
    /// Whether they read the block's own post-attention state too, by the same gate, which then chooses others than it did
    /// for the earlier state (the paper's DGMoE). The two results are added.
    public var isDual: Bool

    /// Where the experts read, for people.
    public var words: String {
        let place =
            switch position {
            case .output: "the block's input"
            case .attention: "the block before after attention"
            case .input: "the input of the block before"
            }
        return "reading \(place)" + (isDual ? " and its own" : "")
    }

    /// A shortcut from the post-attention state of the block before, unless another position is named.
    public init(position: Position = .attention, isDual: Bool = false) {
        self.position = position
        self.isDual = isDual
    }
}

/// How the result of a shared expert joins that of the routed ones, for a token `x` as the shared expert reads it.
public enum SharedCombination: String, Sendable, CaseIterable {
    /// `shared + routed`.
    case sum
    /// `s * shared + routed`, `s = sigmoid(w . x)` (ScMoE's CG-1).
    case gate
    /// `c1 * shared + c0 * routed`, `(c0, c1) = softmax(W x)` (ScMoE's CG-2).
    case softmax

    /// Rows of the matrix that makes the coefficients of a token; 0 for none.
    public var coefficients: Int {
        switch self {
        case .sum: 0
        case .gate: 1
        case .softmax: 2
        }
    }
}
