import ApusTensor
import Synchronization
import Testing

@testable import ApusCollectives

/// Checks of operations on tensors that are elsewhere than in host memory; here a copy of the host's is elsewhere.
@Suite struct TensorPlaceTests {
    /// Copies made, by element type.
    private final class Copies: Sendable {
        let put = Mutex(0)
        let fetched = Mutex(0)
    }

    private func place(_ copies: Copies, addsInRankOrder: Bool) -> TensorPlace {
        let memory = CachingAllocator()
        func copy(_ tensor: Tensor) throws -> Tensor {
            try tensor.ready?.wait()
            let copy = try memory.empty(tensor.shape, tensor.dtype, .data)
            let bytes = tensor.dtype.byteCount(elements: tensor.count)
            copy.rawPointer.copyMemory(from: tensor.rawPointer, byteCount: bytes)
            return copy
        }
        return TensorPlace(stream: .cpu, addsInRankOrder: addsInRankOrder) { tensor in
            copies.put.withLock { $0 += 1 }
            return try copy(tensor)
        } fetch: { tensor in
            copies.fetched.withLock { $0 += 1 }
            return try copy(tensor)
        }
    }

    @Test(arguments: [true, false])
    func `every operation is tried there, and what it makes is looked at here`(addsInRankOrder: Bool) throws {
        let copies = Copies()
        let outcomes = try InProcess.run(ranks: 2) { world in
            try CollectiveCheck.run(
                on: world, sizes: [64], seconds: 0, at: self.place(copies, addsInRankOrder: addsInRankOrder))
        }[0]
        let wrong = outcomes.filter { !$0.passes }
        #expect(wrong.isEmpty, "\(wrong)")
        let hasOrder = outcomes.contains { $0.name.hasSuffix("(rank order)") }
        #expect(hasOrder == addsInRankOrder)
        let checked = outcomes.filter { $0.name != "barrier" && !$0.name.hasSuffix("at once") }.count
        let fetched = copies.fetched.withLock { $0 }
        #expect(fetched >= 2 * checked)
    }

    @Test func `what is done in place stays in place`() throws {
        let copies = Copies()
        let tensor = try CachingAllocator().whole([1, 2], .f32)
        let (operations, output) = try place(copies, addsInRankOrder: true).moved(
            [.allReduce(tensor, .sum, into: tensor)], tensor)
        #expect(operations[0].input?.storage === operations[0].output?.storage)
        #expect(operations[0].output?.storage === output?.storage && output?.storage !== tensor.storage)
        let put = copies.put.withLock { $0 }
        #expect(put == 1)
    }

    @Test func `a wrong element there is found`() throws {
        let memory = CachingAllocator()
        func spoiled(_ tensor: Tensor) throws -> Tensor {
            guard tensor.dtype == .f32, tensor.count > 0 else { return tensor }
            let copy = try memory.whole(tensor.wholeNumbers, .f32)
            copy.pointer(to: Float.self)[0] += 1
            return copy
        }
        let place = TensorPlace(stream: .cpu, addsInRankOrder: true, put: { $0 }, fetch: spoiled)
        let outcomes = try CollectiveCheck.run(on: SingleRank(), sizes: [64], seconds: 0, at: place)
        let failing = outcomes.filter { !$0.passes }
        #expect(failing.contains { $0.name == "all-gather" && $0.wrongByRank == [1] })
        #expect(failing.allSatisfy { $0.dtype == .f32 })
    }
}
