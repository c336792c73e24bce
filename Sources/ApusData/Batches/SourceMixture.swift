import ApusTensor
import Glibc

/// Which source each place of a stream is read from: a function of (seed, place) that gives every source its share
/// exactly.
///
/// Places come in blocks. After `b` blocks of `B` places the sources below `i` have had `floor(b B W_i)` of them, where
/// `W_i` is the sum of their shares: at the end of each block no source is one place off its share. Within a block the
/// order is a permutation keyed by (seed, block).
struct SourceMixture: Sendable {
    /// Sums of shares in units of 2^-32: 0, ..., 2^32.
    private let sums: [UInt64]
    /// B.
    let block: Int
    private let seed: UInt64

    /// Least share of a source.
    static let leastShare = 1e-5

    /// A mixture of sources with these shares, which sum to 1 and are each at least ``leastShare``.
    init(shares: [Double], seed: UInt64) {
        precondition(!shares.isEmpty && shares.allSatisfy { $0 >= Self.leastShare * 0.99 })
        var sum = 0.0
        sums =
            shares.dropLast().reduce(into: [0]) { sums, share in
                sum += share
                sums.append(UInt64((sum * 0x1p32).rounded()))
            } + [1 << 32]
        // At least eight places of every source in each block, so that no rounding makes a count negative.
        var block = 64
        while Double(block) * (shares.min() ?? 1) < 8 { block *= 2 }
        self.block = block
        self.seed = seed
    }

    /// The source of a place, and which of the places that read this source it is.
    func source(at place: Int) -> (source: Int, index: Int) {
        if sums.count == 2 { return (0, place) }
        let number = place / block
        let stream = RandomStream(seed: seed, purpose: .sourceOrder, step: number)
        let slot = Permutation(count: block, stream: stream)(place % block)
        var source = 0
        while slot >= taken(below: source + 1, blocks: number + 1) - taken(below: source + 1, blocks: number) {
            source += 1
        }
        let base = taken(below: source + 1, blocks: number) - taken(below: source, blocks: number)
        let first = taken(below: source, blocks: number + 1) - taken(below: source, blocks: number)
        return (source, base + slot - first)
    }

    /// Places that the sources below `source` have had after `blocks` blocks.
    private func taken(below source: Int, blocks: Int) -> Int {
        let product = (UInt64(blocks) * UInt64(block)).multipliedFullWidth(by: sums[source])
        return Int(product.high << 32 | product.low >> 32)
    }

    /// Shares of sources of these weights at a temperature: proportional to `weight ^ (1 / temperature)`.
    ///
    /// A temperature of 1 keeps the proportions of the weights; a higher one brings the shares closer to each other
    /// (Devlin et al. 2019, multilingual BERT; Kim et al. 2021, Z-code M3, use 5).
    static func shares(weights: [Double], temperature: Double) -> [Double] {
        precondition(temperature > 0 && weights.allSatisfy { $0 > 0 })
        let largest = weights.max() ?? 1
        let scaled = weights.map { pow($0 / largest, 1 / temperature) }
        let sum = scaled.reduce(0, +)
        return scaled.map { $0 / sum }
    }
}
