import Glibc

/// How a cosine router compares tokens with experts (X-MoE, Chi et al. 2022; Tutel's cosine router).
public struct CosineConfiguration: Sendable, Equatable {
    /// P, width of the space in which they are compared.
    public var width: Int
    /// Temperature at the beginning of training, above the floor.
    public var temperature: Float
    /// What the learned temperature stays above.
    public var floor: Float

    /// Tutel's values.
    public init(width: Int = 256, temperature: Float = 0.5, floor: Float = 0.01) {
        self.width = width
        self.temperature = temperature
        self.floor = floor
    }

    /// The parameter's value at the beginning, of which the temperature is `floor / sigmoid(value)`.
    public var initialParameter: Float {
        let share = floor / temperature
        return log(share / (1 - share))
    }
}
