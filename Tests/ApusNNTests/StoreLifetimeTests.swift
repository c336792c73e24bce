import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusNN

/// How long the memory of a model is held.
@Suite struct StoreLifetimeTests {
    @Test func `parameters that nobody holds give their memory back`() throws {
        let backend = CPUBackend(threadCount: 1)
        do {
            let parameters = [parameter("a", 64, 64), parameter("b", 32, 64)]
            let store = try ParameterStore(parameters, backend: backend, precision: .f32, isTrained: true)
            _ = try store.gradientParts[0].gradients()
            #expect(backend.allocator.statistics[.parameters] > 0 && backend.allocator.statistics[.gradients] > 0)
        }
        #expect(backend.allocator.statistics[.parameters] == 0)
        #expect(backend.allocator.statistics[.gradients] == 0)
    }
}
