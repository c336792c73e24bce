import Glibc

/// How evenly the tokens of a layer are shared by its experts.
public struct LoadShape: Sendable, Equatable {
    /// The most loaded expert's load over the mean: 1 when balanced.
    public let peakToMean: Double
    /// Entropy of the shares over that of even ones: 1 when balanced, 0 when one expert gets all.
    public let evenness: Double
    /// Experts that no token chose.
    public let deadExperts: Int

    /// The shape of `shares` (E), which sum to 1.
    public init(_ shares: some Collection<Double>) {
        peakToMean = (shares.max() ?? 0) * Double(shares.count)
        evenness =
            shares.count > 1
            ? shares.reduce(0) { $0 - ($1 > 0 ? $1 * log($1) : 0) } / log(Double(shares.count)) : 1
        deadExperts = shares.count { $0 == 0 }
    }
}
