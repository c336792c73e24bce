import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@Suite struct `A decoder of all layers` {
    let backend = CPUBackend(threadCount: 2)

    @Test func `has the gradients that differences show, in every parameter`() throws {
        let model = try TinyModel(backend, lengths: [4, 7])
        let gradients = try model.gradients()
        var check = GradientCheck()
        check.directions = 2
        check.elements = 3
        // A mean over 11 tokens: smaller slopes against the same rounding.
        check.tolerance = 5e-3
        for parameter in model.placed.store.parameters {
            try check.expect(gradients[parameter.name] ?? [], of: try parameter.acquire(on: .cpu), parameter.name) {
                Double(try model.record(on: Tape(backend: backend, isRecording: false)).tensor.floats()[0])
            }
        }
    }

    @Test func `adds the gradients of two tapes`() throws {
        let model = try TinyModel(backend)
        let once = try model.gradients()
        try model.step()
        for (name, gradient) in try model.placed.gradients() {
            expectClose(gradient, (once[name] ?? []).map { 2 * Double($0) }, within: 1e-5, name)
        }
    }

    @Test func `keeps several tapes alive at once`() throws {
        let model = try TinyModel(backend)
        let expected = try model.gradients()
        try model.placed.zeroGradients()
        let tapes = (0..<3).map { _ in Tape(backend: backend) }
        for (index, tape) in tapes.enumerated() {
            try tape.addRoot(try model.record(on: tape), seed: [0.5, 0.25, 0.25][index])
        }
        for tape in [tapes[1], tapes[0], tapes[2]] { try tape.backward() }
        for (name, gradient) in try model.placed.gradients() {
            expectClose(gradient, (expected[name] ?? []).map(Double.init), within: 1e-5, name)
        }
    }

    @Test func `has the same bits checkpointed, and a lower peak`() throws {
        let model = try TinyModel(backend, blocks: 6, lengths: [60, 70])
        func run(_ isCheckpointed: Bool) throws -> (gradients: [String: [Float]], peak: Int) {
            backend.allocator.resetPeaks()
            let gradients = try model.gradients(isCheckpointed: isCheckpointed)
            return (gradients, backend.allocator.statistics.peak[MemoryPurpose.activations.rawValue])
        }
        let (plain, checkpointed) = (try run(false), try run(true))
        #expect(plain.gradients == checkpointed.gradients)
        #expect(
            2 * checkpointed.peak < plain.peak,
            "\(formatBytes(checkpointed.peak)) checkpointed, \(formatBytes(plain.peak)) without")
    }

    @Test func `has the same loss checkpointed and not recorded`() throws {
        let model = try TinyModel(backend)
        let idle = try model.record(on: Tape(backend: backend, isRecording: false)).tensor
        expectSameBits(try model.step(), idle, "recorded")
        expectSameBits(try model.step(isCheckpointed: true), idle, "checkpointed")
    }

    @Test func `has the same gradients under every valid schedule`() throws {
        let model = try TinyModel(backend)
        let expected = try model.gradients()
        var schedules: [(String, BackwardSchedule)] = [("overlapping", .overlapping)]
        for seed in UInt64(1)...4 {
            schedules.append(("random order \(seed)", .custom { randomOrder($0, seed: seed) }))
        }
        for (name, schedule) in schedules {
            for isCheckpointed in [false, true] {
                for (parameter, gradient) in try model.gradients(schedule: schedule, isCheckpointed: isCheckpointed) {
                    // Sums of several gradients may be formed in another order.
                    expectClose(
                        gradient, (expected[parameter] ?? []).map(Double.init), within: 1e-5,
                        "\(parameter), \(name), checkpointed \(isCheckpointed)")
                }
            }
        }
    }

    @Test(arguments: [(Precision.bf16, 2e-2), (.bf16Pure, 2e-2)])
    func `has nearly the gradients of f32 in bf16`(precision: Precision, tolerance: Double) throws {
        let narrow = try TinyModel(backend, lengths: [40, 30], precision: precision)
        let wide = try TinyModel(backend, lengths: [40, 30])
        // The same weights in both: those that bf16 can hold.
        for parameter in narrow.placed.store.parameters {
            let target = try #require(wide.placed.store[parameter.name])
            try target.acquire(on: .cpu).assign(try parameter.acquire(on: .cpu).floats())
        }
        let expected = try wide.gradients()
        for (name, gradient) in try narrow.gradients() {
            expectClose(gradient, (expected[name] ?? []).map(Double.init), within: tolerance, "\(name), \(precision)")
        }
        let losses = (try narrow.step().floats()[0], try wide.step().floats()[0])
        #expect(abs(losses.0 - losses.1) < 5e-3 * losses.1)
    }

    @Test(arguments: Precision.allCases, [false, true])
    func `asks the system for no memory after its first step, and leaks none`(
        precision: Precision, isCheckpointed: Bool
    ) throws {
        let model = try TinyModel(backend, precision: precision)
        try expectNoLeak(in: backend.allocator) {
            try expectSteadyMemory(in: backend.allocator, runs: 4) {
                _ = try model.step(isCheckpointed: isCheckpointed)
                model.placed.store.releaseGradients()
            }
        }
    }
}

/// A random order in which every consumer comes before its producers.
func randomOrder(_ graph: TapeGraph, seed: UInt64) -> [Int] {
    var generator = SeededGenerator(seed: seed)
    var waiting = Array(repeating: 0, count: graph.names.count)
    for producers in graph.producers { for producer in producers { waiting[producer] += 1 } }
    var ready = waiting.indices.filter { waiting[$0] == 0 }
    var order: [Int] = []
    while !ready.isEmpty {
        let next = ready.remove(at: Int.random(in: ready.indices, using: &generator))
        order.append(next)
        for producer in graph.producers[next] {
            waiting[producer] -= 1
            if waiting[producer] == 0 { ready.append(producer) }
        }
    }
    return order
}
