import ApusCollectives
import ApusTensor
import Testing

@testable import ApusCUDA

/// Ranks that were not told where to compute.
@Suite struct DeviceChoiceTests {
    private typealias Found = CUDAWorld.RankDevice

    private static func gpu(_ identity: Int) -> Found { Found(identity: identity, problem: nil, hasDriver: true) }
    private static func none(_ problem: LibraryProblem, hasDriver: Bool = true) -> Found {
        Found(identity: nil, problem: problem, hasDriver: hasDriver)
    }

    /// What the ranks come to, which must be the same on all.
    private func choice(_ found: [Found]) throws -> CUDAWorld.Choice {
        let choices = try InProcess.run(ranks: found.count) { try CUDAWorld.choice(found[$0.rank], over: $0) }
        #expect(choices.allSatisfy { $0 == choices[0] }, "\(choices)")
        return choices[0]
    }

    @Test func `each has a GPU of its own`() throws {
        #expect(try choice([Self.gpu(3), Self.gpu(4), Self.gpu(-3)]) == .gpus)
    }

    @Test func `one without a GPU takes all of them to the processor, and says why`() throws {
        let reason = "rank 1: \(LibraryProblem.noSuchDevice(ordinal: 1, count: 0))"
        let found = [Self.gpu(1), Self.none(.noSuchDevice(ordinal: 1, count: 0)), Self.none(.noDevice)]
        #expect(try choice(found) == .processors(reason: reason))
    }

    @Test func `a machine without a driver among others is told of, and none when no machine has one`() throws {
        let missing = LibraryProblem.missing(library: "the NVIDIA driver", needed: "12.0", reason: "libcuda.so.1")
        let without = Self.none(missing, hasDriver: false)
        #expect(try choice([Self.gpu(1), without]) == .processors(reason: "rank 1: \(missing)"))
        #expect(try choice([without, without]) == .processors(reason: nil))
    }

    @Test func `two that would share a GPU compute on the processor`() throws {
        #expect(
            try choice([Self.gpu(5), Self.gpu(6), Self.gpu(5)])
                == .processors(reason: "ranks 0 and 2 have one GPU between them, and NCCL needs one for each"))
    }
}
