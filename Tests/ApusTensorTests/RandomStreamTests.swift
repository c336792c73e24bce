import ApusTensor
import CApusKernels
import Testing

@Suite struct `Random streams` {
    private func kernelStream(_ stream: RandomStream) -> apus_random_stream {
        apus_random_stream(seed: stream.seed, word0: stream.word0, word1: stream.word1)
    }

    private func words(_ stream: RandomStream, _ range: Range<Int>) -> [UInt32] {
        var result = Array(repeating: UInt32(0), count: range.count)
        apus_random_words(&result, range.count, kernelStream(stream), UInt64(range.lowerBound))
        return result
    }

    /// The known answers of the generator's authors (Random123, `kat_vectors`, `philox4x32 10`).
    @Test(
        arguments: [
            ([0, 0, 0, 0], [0, 0], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            (
                [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff], [0xffff_ffff, 0xffff_ffff],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
            ),
        ] as [([UInt32], [UInt32], [UInt32])])
    func `map counters as Philox4x32-10 does`(counter: [UInt32], key: [UInt32], expected: [UInt32]) {
        let block = apus_philox(
            UInt64(key[1]) << 32 | UInt64(key[0]),
            apus_u32x4(x: counter[0], y: counter[1], z: counter[2], w: counter[3]))
        #expect([block.x, block.y, block.z, block.w] == expected)
    }

    @Test(arguments: [0, 1, 2, 3, 5, 16, 31, 64, 100])
    func `do not depend on where a range is cut`(cut: Int) {
        let stream = RandomStream(seed: 42, purpose: .tokenSelection, layer: 3, step: 9)
        let whole = words(stream, 7..<207)
        #expect(words(stream, 7..<7 + cut) + words(stream, 7 + cut..<207) == whole)
        #expect(apus_random_word(kernelStream(stream), UInt64(7 + cut)) == whole[cut])
    }

    @Test func `draw far beyond 32 bits of index`() {
        let stream = RandomStream(seed: 1, purpose: .dataOrder)
        let far = (1 << 36) - 3
        #expect(words(stream, far..<far + 8).first == apus_random_word(kernelStream(stream), UInt64(far)))
        #expect(words(stream, far..<far + 8) != words(stream, 0..<8))
    }

    @Test func `differ in every key`() {
        var seen: Set<[UInt32]> = []
        var streams = 0
        for seed in [UInt64(1), 2, 1 << 32] {
            for purpose in [RandomPurpose.initialization, .routerJitter, .stochasticRounding] {
                for layer in [0, 1, 65_535] {
                    for step in [0, 1, 70_000] {
                        streams += 1
                        seen.insert(words(RandomStream(seed: seed, purpose: purpose, layer: layer, step: step), 0..<4))
                    }
                }
            }
        }
        #expect(seen.count == streams)
    }

    @Test func `are uniform, bit by bit`() {
        let draws = words(RandomStream(seed: 3, purpose: .sampling), 0..<100_000)
        for bit in 0..<32 {
            let ones = draws.reduce(0) { $0 + Int($1 >> UInt32(bit) & 1) }
            // Five standard deviations of a fair coin.
            #expect(abs(ones - 50_000) < 800, "bit \(bit)")
        }
    }

    @Test func `refuse a layer that has no room in their key`() async {
        await #expect(processExitsWith: .failure) {
            _ = RandomStream(seed: 1, purpose: .initialization, layer: 1 << 16)
        }
    }
}
