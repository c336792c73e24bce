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
        #expect(store.groups.allSatisfy { $0.gradients?.floats().allSatisfy { $0 == 0 } == true })
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
            #expect(store.groups.map { $0.gradients?.dtype } == [gradient, .f32])
        }
    }

    @Test func `has no gradients when nothing is trained`() throws {
        let a = parameter("a", 4)
        #expect(try store([a], isTrained: false).groups[0].gradients == nil)
        #expect(a.gradient == nil)
    }

    @Test func `gives views of the flat buffers`() throws {
        let (a, b) = (parameter("a", 2, 3), parameter("b", 4))
        let store = try store([a, b])
        try b.acquire(on: .cpu).assign([Float(1), 2, 3, 4])
        b.gradient?.assign([Float(5), 6, 7, 8])
        #expect(Array(store.groups[0].weights.floats().suffix(4)) == [1, 2, 3, 4])
        #expect(store.groups[0].gradients?.floats() == [0, 0, 0, 0, 0, 0, 5, 6, 7, 8])
    }

    @Test func `reads neighbours as one`() throws {
        let parts = [parameter("query", 4, 3), parameter("key", 2, 3), parameter("value", 2, 3)]
        let store = try store([parameter("before", 5)] + parts + [parameter("after", 5)])
        try store.initialize(seed: 1, backend: backend)
        let span = ParameterSpan(parts, shape: Shape(8, 3))
        #expect(span.weightShape == Shape(8, 3))
        #expect(try span.acquire(on: .cpu).floats() == parts.flatMap { try weights($0) })
        span.gradient?.assign((0..<24).map(Float.init))
        #expect(parts[1].gradient?.floats() == (12..<18).map(Float.init))
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
