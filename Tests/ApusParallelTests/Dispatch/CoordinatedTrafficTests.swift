import ApusCollectives
import ApusExperts
import ApusNN
import ApusTensor
import Testing

@testable import ApusParallel

// Shape letters: T tokens, D model width, E experts, C capacity. p ranks in tensor groups of L.

/// Parallelism-coordinated communication (DeepSpeed-MoE section 5.3): where L tensor ranks hold the same tokens, each
/// exchanges 1 / L of the rows with the p / L ranks of its own tensor rank, and one all-gather over L ends it.
@Suite struct CoordinatedTrafficTests {
    /// C is 4.
    static let item = LayerCase(
        name: "padded",
        configuration: MoEConfiguration(
            experts: 4, choices: 2, width: 4, policy: .capacity(factor: 1, minimum: 1, order: .position),
            bank: .padded), lengths: [[8]])

    /// Bytes of `rows` rows.
    private func bytes(_ rows: Int) -> Int { rows * CoordinatedTrafficTests.item.width * 4 }

    @Test(arguments: [(2, 1), (2, 2), (2, 4), (4, 2), (4, 4)])
    func `messages of a forward pass are p over L and L`(_ expertRanks: Int, _ tensorRanks: Int) throws {
        for dividesExperts in [false, true] {
            let world = WorldShape(
                expertRanks: expertRanks, tensorRanks: tensorRanks,
                options: ExpertParallelOptions(dividesExperts: dividesExperts), evaluates: true)
            // Experts that are cut read the rows of all, and give back sums.
            let isCut = dividesExperts && tensorRanks > 1
            let gathers = tensorRanks == 1 ? 0 : isCut ? 2 : 1
            for result in try CoordinatedTrafficTests.item.onRanks(world) {
                // There and back, to p / L - 1 others, E C / L rows each time.
                #expect(result.messages.rows == 2 * (expertRanks - 1))
                let exchanged = result.traffic.total(of: .allToAll, dtype: .f32)
                #expect(exchanged == CollectiveLedger.Count(calls: 2, bytes: 2 * bytes(4 * 4 / tensorRanks)))
                #expect(result.messages.count(.allGather, .f32) == gathers * (tensorRanks - 1))
                #expect(
                    result.traffic.total(of: .allGather, dtype: .f32)
                        == CollectiveLedger.Count(calls: gathers, bytes: gathers * bytes(4 * 4)))
                #expect(result.traffic.total(of: .reduceScatter, dtype: .f32).calls == (isCut ? 1 : 0))
                #expect(result.traffic.total(of: .allReduce, dtype: .f32).calls == 0)
            }
        }
    }

    @Test(arguments: [2, 4])
    func `without coordination every tensor rank exchanges all rows`(tensorRanks: Int) throws {
        let world = WorldShape(
            expertRanks: 2, tensorRanks: tensorRanks, options: ExpertParallelOptions(dropsDuplicates: false),
            evaluates: true)
        for result in try CoordinatedTrafficTests.item.onRanks(world) {
            #expect(
                result.traffic.total(of: .allToAll, dtype: .f32)
                    == CollectiveLedger.Count(calls: 2, bytes: 2 * bytes(4 * 4)))
            #expect(result.traffic.total(of: .allGather, dtype: .f32).calls == 0)
        }
    }

    /// One all-to-all among all p ranks is what coordination is measured against.
    @Test func `an expert group over all ranks takes p messages`() throws {
        let world = WorldShape(
            expertRanks: 2, tensorRanks: 4, options: ExpertParallelOptions(dividesExperts: false), spansTensor: true,
            evaluates: true)
        for result in try CoordinatedTrafficTests.item.onRanks(world) { #expect(result.messages.rows == 2 * 7) }
    }

    @Test func `dropless results are gathered as tokens`() throws {
        let world = WorldShape(
            expertRanks: 2, tensorRanks: 2, options: ExpertParallelOptions(dividesExperts: false), evaluates: true)
        for result in try DispatchTrafficTests.item.onRanks(world) {
            #expect(result.messages.count(.allToAllUneven, .f32) <= 2)
            // T is 8, K 2.
            #expect(
                result.traffic.total(of: .allGather, dtype: .f32) == CollectiveLedger.Count(calls: 1, bytes: bytes(8)))
        }
    }
}
