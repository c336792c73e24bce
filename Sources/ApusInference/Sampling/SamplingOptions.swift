/// How the next token is chosen from the logits.
public struct SamplingOptions: Sendable, Equatable {
    /// Logits are divided by this; 0 always takes the highest (greedy), and then nothing below matters.
    public var temperature: Float
    /// Only the `topK` highest logits can be chosen; 0 for all.
    public var topK: Int
    /// Only the most probable tokens whose probabilities first sum to this can be chosen; 1 for all.
    ///
    /// The token that reaches the sum is included (nucleus sampling, Holtzman et al. 2020, section 3.1). What is summed
    /// is the share among the tokens that ``topK`` keeps.
    public var topP: Float
    /// Keys the draws.
    public var seed: UInt64

    /// Options; greedy by default.
    public init(temperature: Float = 0, topK: Int = 0, topP: Float = 1, seed: UInt64 = 0) {
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.seed = seed
    }

    /// Whether the highest logit is always taken.
    public var isGreedy: Bool { temperature == 0 }

    /// - Throws: ``InferenceError/invalidOption(name:value:expected:)``
    public func validate() throws(InferenceError) {
        guard temperature >= 0, temperature.isFinite else {
            throw .invalidOption(
                name: "temperature", value: "\(temperature)", expected: "0 (the best token always) or a number above")
        }
        guard topK >= 0 else {
            throw .invalidOption(
                name: "top-k", value: "\(topK)", expected: "0 (all tokens) or the number of tokens to keep")
        }
        guard topP > 0, topP <= 1 else {
            throw .invalidOption(name: "top-p", value: "\(topP)", expected: "above 0 and at most 1 (all tokens)")
        }
    }
}
