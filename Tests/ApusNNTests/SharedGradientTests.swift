import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusNN

/// Gradients of parameters that several ranks hold.
@Suite struct SharedGradientTests {
    private let backend = CPUBackend(threadCount: 1)

    private func store(_ share: StateShare) throws -> ParameterStore {
        let parameters = [
            Parameter("norm", Shape(5), decays: false, initializer: .constant(1)),
            Parameter("a", Shape(10, 7), initializer: .constant(1), sharing: Sharing(overTensorRanks: .same)),
            Parameter("b", Shape(3, 7), initializer: .constant(2), sharing: Sharing(overTensorRanks: .same)),
            Parameter("c", Shape(4), role: .expert, initializer: .constant(3), sharing: Sharing(expertDegree: 2)),
            Parameter("d", Shape(4), role: .expert, initializer: .constant(4), sharing: Sharing(expertDegree: 4)),
        ]
        let store = try ParameterStore(
            parameters, backend: backend, precision: .f32, isTrained: true
        ) { _ in share }
        try store.initialize(seed: 1, backend: backend)
        return store
    }

    @Test func `parameters that others share differently lie in other groups`() throws {
        let store = try store(.whole)
        #expect(store.groups.map { $0.parameters.map(\.name) } == [["a", "b"], ["norm"], ["c"], ["d"]])
        #expect(store.groups.map(\.sharing.expertDegree) == [nil, nil, 2, 4])
        // One rank pads nothing.
        #expect(store.groups.map(\.weights.count) == [91, 5, 4, 4])
    }

    @Test func `parts divide evenly, and padding is zero in weights and gradients`() throws {
        for index in 0..<3 {
            let store = try store(StateShare(index: index, count: 3))
            for group in store.groups {
                let part = group.gradientParts[0]
                #expect(part.range.count % (3 * 64) == 0 && part.ownRange.count * 3 == part.range.count)
                #expect(part.ownRange.lowerBound == index * part.ownRange.count)
                let used = group.parameters.reduce(0) { $0 + $1.localShape.count }
                #expect(group.weights[used..<group.weights.count].floats().allSatisfy { $0 == 0 })
                // Written by a product before anybody asks for the whole part.
                let (gradient, adds) = try #require(try group.parameters[0].gradientTarget())
                #expect(!adds)
                for place in 0..<gradient.count { gradient.pointer(to: Float.self)[place] = 1 }
                let values = try part.gradients().floats()
                #expect(values.prefix(gradient.count).allSatisfy { $0 == 1 })
                #expect(values.dropFirst(gradient.count).allSatisfy { $0 == 0 })
            }
        }
    }

    @Test func `a kept share takes the place of the part, and later ones are added`() throws {
        let store = try store(StateShare(index: 1, count: 2))
        let part = store.groups[0].gradientParts[0]
        _ = try part.gradients()
        func sums(_ value: Float) throws -> Tensor {
            let tensor = try backend.empty(Shape(part.ownRange.count), .f32)
            backend.fill(tensor, with: value)
            return tensor
        }
        part.releaseWhole()
        try part.keepOwn(sums(2))
        #expect(part.heldRange == part.ownRange)
        try part.keepOwn(sums(3))
        #expect(try part.ownGradients().floats().allSatisfy { $0 == 5 })
        let pieces = try store.gradientPieces().filter { $0.parameter.role == .dense && $0.parameter.decays }
        // The second half of 91 elements in 128: the end of b, and padding that is nobody's.
        #expect(pieces.map(\.parameter.name) == ["a", "b"])
        #expect(pieces.map(\.elements) == [64..<70, 0..<21])
        store.releaseGradients()
        #expect(part.heldRange == part.range)
        #expect(try part.ownGradients().floats().allSatisfy { $0 == 0 })
    }

    @Test func `a place among layers is the number of parameters before it`() throws {
        let parameters = [
            Parameter("table", Shape(2), initializer: .constant(0)),
            Parameter("first", Shape(2), layer: 0, initializer: .constant(0)),
            Parameter("second", Shape(2), layer: 2, initializer: .constant(0)),
            Parameter("head", Shape(2), initializer: .constant(0)),
        ]
        let store = try ParameterStore(parameters, backend: backend, precision: .f32, isTrained: true)
        #expect((0...3).map(store.parameters(before:)) == [1, 2, 2, 3])
    }
}
