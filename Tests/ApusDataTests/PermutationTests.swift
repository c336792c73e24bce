import ApusTensor
import Testing

@testable import ApusData

@Suite struct PermutationTests {
    @Test(arguments: Array(1...40) + [63, 64, 65, 255, 256, 257, 1000, 4095, 4096, 4097, 30_001])
    func `every index comes out once`(_ count: Int) {
        for seed in [0, 1, UInt64.max] {
            let permutation = Permutation(count: count, stream: RandomStream(seed: seed, purpose: .dataOrder))
            #expect(Set((0..<count).map { permutation($0) }) == Set(0..<count))
        }
    }

    @Test func `it shuffles: few stay, neighbours part, seeds and epochs differ`() {
        let count = 2000
        let orders = [(1, 0), (1, 1), (2, 0)].map { seed, epoch in
            let stream = RandomStream(seed: UInt64(seed), purpose: .dataOrder, step: epoch)
            let permutation = Permutation(count: count, stream: stream)
            return (0..<count).map { permutation($0) }
        }
        for order in orders {
            #expect(order.enumerated().count { $0.offset == $0.element } < 12)
            #expect(zip(order, order.dropFirst()).count { $1 == $0 + 1 } < 12)
            let early = order[..<(count / 2)].reduce(0, +)
            let even = count * (count - 1) / 4
            #expect(abs(early - even) < even / 20)
        }
        #expect(zip(orders[0], orders[1]).count { $0 == $1 } < 12)
        #expect(zip(orders[0], orders[2]).count { $0 == $1 } < 12)
    }

    @Test func `a huge count needs no table`() {
        let count = 1 << 60
        let permutation = Permutation(count: count, stream: RandomStream(seed: 3, purpose: .dataOrder))
        let images = (0..<1000).map { permutation($0) }
        #expect(Set(images).count == 1000)
        #expect(images.allSatisfy { (0..<count).contains($0) })
    }
}
