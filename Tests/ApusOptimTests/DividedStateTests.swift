import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusOptim

/// The optimizer of a rank that steps its share (ZeRO-1).
@Suite struct DividedStateTests {
    private let backend = CPUBackend(threadCount: 1)

    private func store(_ precision: Precision, _ share: StateShare) throws -> ParameterStore {
        let parameters = (0..<4).map { index in
            Parameter(
                "p\(index)", Shape(30 + index, 7), layer: index, decays: index % 2 == 0,
                initializer: .normal(deviation: 0.5))
        }
        let store = try ParameterStore(parameters, backend: backend, precision: precision, isTrained: true) { _ in share
        }
        try store.initialize(seed: 5, backend: backend)
        return store
    }

    private func fill(_ store: ParameterStore, step: Int) throws {
        for parameter in store.parameters {
            let gradient = try #require(try parameter.gradient())
            let values = try backend.allocator.random(gradient.shape, seed: UInt64(step * 10 + parameter.name.count))
            try backend.addScaled(values, factor: 1, into: gradient)
        }
    }

    private func step(_ optimizer: AdamW) throws {
        let scale = try backend.empty(Shape(1), .f32)
        backend.fill(scale, with: 0.5)
        for step in 1...3 {
            try fill(optimizer.store, step: step)
            try optimizer.step(learningRate: 0.01, gradientScale: scale, backend: backend)
        }
    }

    @Test(arguments: [Precision.f32, .bf16], [2, 3])
    func `shares together are the bits of the whole, in a part of the memory`(precision: Precision, ranks: Int) throws {
        let constants = AdamW.Configuration()
        let whole = try AdamW(store(precision, .whole), configuration: constants, seed: 1, backend: backend)
        try step(whole)
        let expected = Dictionary(uniqueKeysWithValues: whole.namedStates().map { ($0.name, $0.tensor.bits) })
        var found: [String: [UInt32]] = [:]
        for index in 0..<ranks {
            let share = StateShare(index: index, count: ranks)
            let own = try AdamW(
                store(precision, share), configuration: constants, seed: 1, dividesState: true, backend: backend)
            try step(own)
            let elements = own.states.reduce(0) { $0 + $1.first.count }
            #expect(elements * ranks == own.store.groups.reduce(0) { $0 + $1.weights.count })
            for piece in own.statePieces() {
                // In order of ranks the pieces of a parameter follow each other.
                #expect(found[piece.name, default: []].count == piece.elements.lowerBound)
                found[piece.name, default: []] += piece.tensor.bits
            }
            // What is stepped here has the whole's bits; the rest waits for the other ranks.
            for group in own.store.groups {
                let reference = try #require(whole.store.groups.first { $0.decays == group.decays })
                let used = group.gradientParts[0].ownRange.clamped(to: 0..<reference.weights.count)
                #expect(group.weights[used].bits == reference.weights[used].bits)
            }
        }
        #expect(found == expected)
    }
}
