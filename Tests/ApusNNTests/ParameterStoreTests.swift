import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@Suite struct `A parameter store` {
    let backend = CPUBackend(threadCount: 2)

    private func store(_ parameters: [Parameter], precision: Precision = .f32, isTrained: Bool = true) throws
        -> ParameterStore
    {
        try ParameterStore(parameters, backend: backend, precision: precision, isTrained: isTrained)
    }

    private func weights(_ parameter: Parameter) throws -> [Float] { try parameter.acquire(on: .cpu).floats() }

    @Test func `groups by role and decay, each group without gaps`() throws {
        let parameters = [
            parameter("a", 3, 5), Parameter("norm", Shape(7), decays: false, initializer: .constant(1)),
            parameter("expert", 4, 2, role: .expert), parameter("b", 2, 5), parameter("router", 2, 3, role: .router),
        ]
        let store = try store(parameters)
        #expect(store.groups.map { $0.parameters.map(\.name) } == [["a", "b"], ["norm"], ["expert"], ["router"]])
        #expect(store.groups[0].range(of: parameters[0]) == 0..<15)
        #expect(store.groups[0].range(of: parameters[3]) == 15..<25)
        #expect(store.groups.map(\.weights.count) == [25, 7, 8, 6])
        #expect(try store.gradientParts.allSatisfy { try $0.gradients().floats().allSatisfy { $0 == 0 } })
        #expect(store["b"] === parameters[3])
        #expect(store["c"] == nil)
    }

    @Test func `keeps routers in f32 and gradients in the type of the precision`() throws {
        for (precision, weight, gradient) in [
            (Precision.f32, DType.f32, DType.f32), (.bf16, .bf16, .f32), (.bf16Pure, .bf16, .bf16),
        ] {
            let parameters = [parameter("a", 4), parameter("router", 4, role: .router)]
            let store = try store(parameters, precision: precision)
            #expect(store.groups.map(\.weights.dtype) == [weight, .f32])
            #expect(try store.gradientParts.map { try $0.gradients().dtype } == [gradient, .f32])
        }
    }

    @Test func `has no gradients when nothing is trained`() throws {
        let a = parameter("a", 4)
        #expect(try store([a], isTrained: false).gradientParts.isEmpty)
        #expect(try a.gradient() == nil)
    }

    @Test func `keeps gradients a few layers at a time, from the first use until they are released`() throws {
        let sizes = [3, 1, 1, 2, 4, 1]  // of 2^20 elements: parts end with the layer that reaches 4
        let parameters = sizes.enumerated().map { layer, size in
            Parameter("\(layer)", Shape(size, 1 << 20), layer: layer, initializer: .constant(0))
        }
        let store = try store([parameter("before", 5)] + parameters, precision: .bf16Pure)
        let ranges = store.gradientParts.map(\.range)
        #expect(ranges.map { $0.count >> 20 } == [4, 7, 1] && ranges.first?.lowerBound == 0)
        #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
        #expect(ranges.last?.upperBound == store.groups[0].weights.count)
        let held = { backend.allocator.statistics[.gradients] }
        #expect(held() == 0)
        let last = try #require(try parameters[5].gradient())
        last.assign([UInt16](repeating: 7, count: 1 << 20))
        #expect(held() == 2 << 20)
        #expect(try store.gradientParts[2].gradients().array(of: UInt16.self).allSatisfy { $0 == 7 })
        #expect(try #require(try parameters[3].gradient()).bits.allSatisfy { $0 == 0 })
        try #require(try parameters[4].gradient())[0..<1].assign([UInt16](repeating: 9, count: 1 << 20))
        let words = try store.gradientParts[1].gradients().array(of: UInt16.self)
        #expect(words.firstIndex(of: 9) == 3 << 20 && words.count { $0 == 9 } == 1 << 20)
        store.releaseGradients()
        #expect(try #require(try parameters[4].gradient()).bits.allSatisfy { $0 == 0 })
    }

    @Test func `lets the first product be written and adds what follows`() throws {
        let parts = [parameter("a", 4, 3), parameter("b", 2, 3), parameter("c", 2, 3)]
        let store = try store(parts)
        let span = ParameterSpan(Array(parts.dropFirst()), shape: Shape(4, 3))
        try poison(store)
        for expected in [false, true] {
            let (gradient, adds) = try #require(try parts[1].gradientTarget())
            #expect(adds == expected)
            gradient.assign([Float](repeating: adds ? 3 : 1, count: 6))
        }
        // One of the span's parameters has something: what has nothing becomes zero.
        let (both, adds) = try #require(try span.gradientTarget())
        #expect(adds && both.floats() == [3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0])
        #expect(try store.gradientParts[0].gradients().floats().prefix(12).allSatisfy { $0 == 0 })
        store.releaseGradients()
        #expect(try #require(try span.gradientTarget()).adds == false)
        #expect(try #require(try parts[2].gradientTarget()).adds)
        #expect(try #require(try parts[0].gradientTarget()).adds == false)
    }

    /// Leaves NaN where the next gradients will be.
    private func poison(_ store: ParameterStore) throws {
        for part in store.gradientParts {
            try backend.fill(part.gradients(), with: .nan)
            part.release()
        }
    }

    @Test func `gives views of the flat buffers`() throws {
        let (a, b) = (parameter("a", 2, 3), parameter("b", 4))
        let store = try store([a, b])
        try b.acquire(on: .cpu).assign([Float(1), 2, 3, 4])
        try b.gradient()?.assign([Float(5), 6, 7, 8])
        #expect(Array(store.groups[0].weights.floats().suffix(4)) == [1, 2, 3, 4])
        #expect(try store.gradientParts[0].gradients().floats() == [0, 0, 0, 0, 0, 0, 5, 6, 7, 8])
    }

    @Test func `reads neighbours as one`() throws {
        let parts = [parameter("query", 4, 3), parameter("key", 2, 3), parameter("value", 2, 3)]
        let store = try store([parameter("before", 5)] + parts + [parameter("after", 5)])
        try store.initialize(seed: 1, backend: backend)
        let span = ParameterSpan(parts, shape: Shape(8, 3))
        #expect(span.weightShape == Shape(8, 3))
        #expect(try span.acquire(on: .cpu).floats() == parts.flatMap { try weights($0) })
        try span.gradient()?.assign((0..<24).map(Float.init))
        #expect(try parts[1].gradient()?.floats() == (12..<18).map(Float.init))
    }

    @Test func `refuses to read as one what is not adjacent`() async {
        await #expect(processExitsWith: .failure) {
            let backend = CPUBackend(threadCount: 1)
            let (a, b, c) = (parameter("a", 2, 3), parameter("b", 2, 3), parameter("c", 2, 3))
            _ = try ParameterStore([a, b, c], backend: backend, precision: .f32, isTrained: true)
            _ = try ParameterSpan([a, c], shape: Shape(4, 3)).acquire(on: .cpu)
        }
    }

    @Test func `refuses two parameters of one name`() async {
        await #expect(processExitsWith: .failure) {
            _ = try ParameterStore(
                [parameter("a", 2), parameter("a", 2)], backend: CPUBackend(threadCount: 1), precision: .f32,
                isTrained: true)
        }
    }

    @Test func `initializes whatever the order of declaration`() throws {
        func make() -> [Parameter] {
            [
                parameter("a", 30, 5), parameter("b", 30, 5),
                Parameter("c", Shape(9), decays: false, initializer: .constant(1.5)),
            ]
        }
        let (straight, turned) = (make(), make())
        try store(straight).initialize(seed: 4, backend: backend)
        try store(turned.reversed()).initialize(seed: 4, backend: backend)
        for (left, right) in zip(straight, turned) { #expect(try weights(left) == weights(right)) }
        #expect(try weights(straight[0]) != weights(straight[1]))
        #expect(try weights(straight[2]) == Array(repeating: 1.5, count: 9))
        let other = make()
        try store(other).initialize(seed: 5, backend: backend)
        #expect(try weights(other[0]) != weights(straight[0]))
    }

    @Test(arguments: [0, 1, 2], Precision.allCases)
    func `initializes a shard as the same part of the whole`(dimension: Int, precision: Precision) throws {
        let shape = Shape(6, 10, 14)
        let whole = Parameter("w", shape, initializer: .normal(deviation: 0.02))
        try store([whole], precision: precision).initialize(seed: 3, backend: backend)
        let all = try weights(whole)
        for range in [0..<shape[dimension] / 2, shape[dimension] / 2..<shape[dimension]] {
            let part = Parameter(
                "w", shape, initializer: .normal(deviation: 0.02), shard: Shard(dimension: dimension, range: range))
            try store([parameter("other", 3), part], precision: precision).initialize(seed: 3, backend: backend)
            #expect(part.localShape[dimension] == range.count)
            let expected = all.indices.filter { index in
                let place = [index / 140, index / 14 % 10, index % 14]
                return range.contains(place[dimension])
            }
            #expect(try weights(part) == expected.map { all[$0] }, "\(range) of dimension \(dimension)")
        }
    }

    @Test func `draws with the deviation asked for`() throws {
        let a = Parameter("a", Shape(200, 200), initializer: .normal(deviation: 0.02))
        try store([a]).initialize(seed: 1, backend: backend)
        let squares = try weights(a).reduce(0.0) { $0 + Double($1) * Double($1) }
        #expect(abs((squares / 40_000).squareRoot() - 0.02) < 0.0005)
    }
}
