/// How sequences are continued, and when they end.
public struct GenerationOptions: Sendable, Equatable {
    /// Most tokens to generate for each prompt.
    public var maximumTokens: Int
    /// Ids that end a sequence; the id itself is part of the result.
    public var ends: Set<Int32>
    /// What an empty prompt is replaced by, usually the vocabulary's end-of-document id; `nil` to refuse one.
    public var start: Int32?
    /// How tokens are chosen.
    public var sampling: SamplingOptions
    /// Whether keys and values are kept; without, every step computes all sequences anew: a reference for tests.
    public var keepsKeys: Bool
    /// Whether greedy steps of one token are recorded once and repeated, the host a step behind; `nil` for where the device
    /// gains by it. The tokens are the same.
    public var recordsSteps: Bool?
    /// Tokens in a block of the cache, from 16 to 64.
    public var blockSize: Int
    /// Most tokens of the cache, `nil` for no limit but memory; prompts that do not fit together take turns.
    public var cacheTokens: Int?
    /// Most tokens in one pass; longer prompts are read in several.
    public var passTokens: Int

    /// Options; greedy by default.
    public init(
        maximumTokens: Int = 256, ends: Set<Int32> = [], start: Int32? = nil,
        sampling: SamplingOptions = SamplingOptions(),
        keepsKeys: Bool = true, recordsSteps: Bool? = nil, blockSize: Int = 16, cacheTokens: Int? = nil,
        passTokens: Int = 8192
    ) {
        self.maximumTokens = maximumTokens
        self.ends = ends
        self.start = start
        self.sampling = sampling
        self.keepsKeys = keepsKeys
        self.recordsSteps = recordsSteps
        self.blockSize = blockSize
        self.cacheTokens = cacheTokens
        self.passTokens = passTokens
    }

    /// - Throws: ``InferenceError/invalidOption(name:value:expected:)``
    public func validate() throws(InferenceError) {
        guard maximumTokens >= 1 else {
            throw .invalidOption(name: "max-tokens", value: "\(maximumTokens)", expected: "at least 1")
        }
        guard passTokens >= 1 else {
            throw .invalidOption(name: "the number of tokens in a pass", value: "\(passTokens)", expected: "at least 1")
        }
        try sampling.validate()
    }
}

/// What is to be continued.
public struct Prompt: Sendable, Equatable {
    /// Token ids.
    public let tokens: [Int32]
    /// What the draws are keyed by: the same index, seed and tokens give the same continuation in any batch.
    public let index: Int

    /// A prompt.
    public init(_ tokens: [Int32], index: Int = 0) {
        self.tokens = tokens
        self.index = index
    }
}

/// Why a sequence ended.
public enum FinishReason: String, Sendable {
    /// It generated one of the ids that end it.
    case end
    /// It has as many tokens as were asked for.
    case length
    /// It fills the model's context.
    case context
}

/// A token as it is generated.
public struct GeneratedToken: Sendable, Equatable {
    /// Which of the prompts it continues, by place in the list.
    public let prompt: Int
    /// The token.
    public let id: Int32
    /// Why the sequence ends with it; `nil` while it goes on.
    public let finish: FinishReason?
}

/// The continuation of one prompt.
public struct Generation: Sendable, Equatable {
    /// The generated ids, without the prompt, with the id that ended it.
    public let tokens: [Int32]
    /// Why it ended.
    public let finish: FinishReason
}
