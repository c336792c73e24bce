import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@Suite struct `Random fills` {
    static let distributions: [RandomDistribution] = [
        .uniform(low: -2, high: 3), .normal(mean: 1, deviation: 0.5), .gumbel,
    ]
    let backend = CPUBackend(threadCount: 2)
    let stream = RandomStream(seed: 11, purpose: .initialization, layer: 4, step: 2)

    private func draws(_ distribution: RandomDistribution, _ count: Int, first: UInt64 = 0) throws -> Tensor {
        let tensor = try backend.sentinel(count)
        try backend.fillRandom(tensor, distribution, stream: stream, first: first)
        return tensor
    }

    @Test(arguments: distributions)
    func `do not depend on where a range is cut`(distribution: RandomDistribution) throws {
        let whole = try draws(distribution, 300, first: 5)
        for cut in [0, 1, 2, 3, 4, 7, 16, 33, 299] {
            let (head, tail) = (
                try draws(distribution, cut, first: 5), try draws(distribution, 300 - cut, first: 5 + UInt64(cut))
            )
            expectSameBits(head, whole[0..<cut], "first \(cut)")
            expectSameBits(tail, whole[cut..<300], "after \(cut)")
        }
    }

    @Test(arguments: distributions)
    func `do not depend on the number of threads`(distribution: RandomDistribution) throws {
        let stream = stream
        try expectSameBitsForAnyThreadCount("\(distribution)") { backend in
            let tensor = try backend.empty(Shape(70_001), .f32)
            try backend.fillRandom(tensor, distribution, stream: stream, first: 3)
            return [tensor]
        }
    }

    /// Mean and deviation of each distribution, within five standard errors.
    @Test(
        arguments: zip(
            distributions, [(0.5, 5 / 12.0.squareRoot()), (1, 0.5), (0.577216, Double.pi / 6.0.squareRoot())]))
    func `have the mean and deviation of their distribution`(
        distribution: RandomDistribution, expected: (mean: Double, deviation: Double)
    ) throws {
        let count = 200_000
        let values = try draws(distribution, count).doubles
        let mean = values.reduce(0, +) / Double(count)
        let deviation = (values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(count)).squareRoot()
        #expect(abs(mean - expected.mean) < 5 * expected.deviation / Double(count).squareRoot())
        #expect(abs(deviation / expected.deviation - 1) < 0.01)
        #expect(values.allSatisfy { $0.isFinite })
        if case .uniform(let low, let high) = distribution {
            #expect(values.allSatisfy { $0 >= Double(low) && $0 < Double(high) })
        }
    }

    @Test func `of normal draws have normal tails`() throws {
        let values = try draws(.normal(mean: 0, deviation: 1), 200_000).doubles
        for bound in [0.5, 1, 2, 3] {
            let share = Double(values.count { abs($0) > bound }) / Double(values.count)
            let expected = erfc(bound / 2.0.squareRoot())
            #expect(abs(share - expected) < 5 * (expected / Double(values.count)).squareRoot(), "beyond \(bound)")
        }
    }

    @Test(arguments: distributions.prefix(2))
    func `in bf16 are the rounded draws`(distribution: RandomDistribution) throws {
        let narrow = try backend.empty(Shape(1000), .bf16)
        try backend.fillRandom(narrow, distribution, stream: stream, first: 9)
        let wide = try draws(distribution, 1000, first: 9)
        #expect(narrow.array(of: UInt16.self) == wide.floats().map(bfloat16Bits))
    }
}
