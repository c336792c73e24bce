/// A small generator with a seed, so that a test sees the same numbers every time (SplitMix64, Steele and others 2014).
public struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    /// The sequence of this seed.
    public init(seed: UInt64) { state = seed }

    /// The next 64 bits.
    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }

    /// A uniform draw from `-scale ..< scale`.
    public mutating func value(scale: Float = 1) -> Float { Float.random(in: -scale..<scale, using: &self) }
}
