import Glibc

// Shape letters: R elements that are turned.

/// Rotary positions stretched to a context longer than the one that a model was first trained with (YaRN, Peng et al. 2023,
/// section 3), as DeepSeek uses it.
public struct YarnConfiguration: Sendable, Equatable {
    /// How many times longer.
    public var factor: Double
    /// Longest sequence of the first training.
    public var originalPositions: Int
    /// Pairs that turn more often than this over ``originalPositions`` keep their frequency.
    public var betaFast: Double
    /// Pairs that turn less often than this have it divided by ``factor``; those between are mixed.
    public var betaSlow: Double
    /// How much cosines and sines grow with the factor's logarithm; 0 for YaRN's own 1.
    public var mscale: Double
    /// How much scores grow with it, which is taken back from cosines and sines; 0 for not at all.
    public var mscaleAll: Double

    /// A stretch; bounds are YaRN's.
    public init(
        factor: Double, originalPositions: Int, betaFast: Double = 32, betaSlow: Double = 1, mscale: Double = 0,
        mscaleAll: Double = 0
    ) {
        self.factor = factor
        self.originalPositions = originalPositions
        self.betaFast = betaFast
        self.betaSlow = betaSlow
        self.mscale = mscale
        self.mscaleAll = mscaleAll
    }

    private func growth(_ weight: Double) -> Double { factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1 }

    /// Factor on cosines and sines.
    var amplitude: Double { mscale == 0 || mscaleAll == 0 ? growth(1) : growth(mscale) / growth(mscaleAll) }
    /// Factor on scores.
    var scoreFactor: Double { mscaleAll == 0 ? 1 : growth(mscaleAll) * growth(mscaleAll) }

    /// The angle by which each of R / 2 pairs turns from one position to the next.
    func frequencies(width: Int, theta: Double) -> [Double] {
        /// Which pair turns `turns` times over the original context, as a number that need not be whole.
        func pair(_ turns: Double) -> Double {
            Double(width) * log(Double(originalPositions) / (turns * 2 * .pi)) / (2 * log(theta))
        }
        let first = max(pair(betaFast).rounded(.down), 0)
        let last = min(pair(betaSlow).rounded(.up), Double(width - 1))
        return (0..<width / 2).map { index in
            let plain = pow(theta, -2 * Double(index) / Double(width))
            let place = (Double(index) - first) / (first == last ? 0.001 : last - first)
            let share = min(max(place, 0), 1)
            return plain / factor * share + plain * (1 - share)
        }
    }

    func check(theta: Double) throws(ModelConfigurationError) {
        try require(factor >= 1 && factor.isFinite, "yarn.factor", factor, "it must be a number from 1")
        try require(originalPositions >= 1, "yarn.original_positions", originalPositions, "it must be at least 1")
        try require(
            betaSlow > 0 && betaFast >= betaSlow && betaFast.isFinite, "yarn.beta_fast", betaFast,
            "it must be a number from 'yarn.beta_slow', which must be positive")
        for (key, value) in [("mscale", mscale), ("mscale_all", mscaleAll)] {
            try require(value >= 0 && value.isFinite, "yarn.\(key)", value, "it must be a number from 0")
        }
        try require(theta > 1, "position.theta", theta, "with 'yarn' it must be above 1")
    }
}

extension YarnConfiguration {
    var jsonValue: JSONValue {
        .object([
            "factor": .number(factor), "original_positions": .integer(originalPositions),
            "beta_fast": .number(betaFast), "beta_slow": .number(betaSlow), "mscale": .number(mscale),
            "mscale_all": .number(mscaleAll),
        ])
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: [
            "factor", "original_positions", "beta_fast", "beta_slow", "mscale", "mscale_all",
        ])
        try self.init(
            factor: fields.number("factor"), originalPositions: fields.integer("original_positions"),
            betaFast: fields.number("beta_fast"), betaSlow: fields.number("beta_slow"),
            mscale: fields.number("mscale"), mscaleAll: fields.number("mscale_all"))
    }
}
