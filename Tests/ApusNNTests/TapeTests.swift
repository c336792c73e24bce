import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Synchronization
import Testing

@Suite struct `The tape` {
    let backend = CPUBackend(threadCount: 2)

    private func values(_ count: Int = 6, seed: UInt64 = 1) throws -> Tensor {
        try backend.allocator.random(Shape(count), seed: seed)
    }

    /// `factor * x`, with an adjoint that writes over the gradient it takes: what sharing must survive.
    private func scaled(_ x: Variable, by factor: Float, on tape: Tape) throws -> Variable {
        let y = try backend.empty(x.shape, .f32)
        try backend.scale(x.tensor, by: factor, into: y)
        return tape.record("scale", inputs: [x], output: y) { flow in
            guard let gradient = flow.takeOutput() else { return }
            let owned = try flow.backend.exclusive(gradient)
            try flow.backend.scale(owned, by: factor, into: owned)
            try flow.accumulate(owned, into: x)
        }
    }

    /// As ``scaled(_:by:on:)``, with an adjoint that adds into the input's gradient.
    private func addScaled(_ x: Variable, by factor: Float, on tape: Tape) throws -> Variable {
        let y = try backend.empty(x.shape, .f32)
        try backend.scale(x.tensor, by: factor, into: y)
        return tape.record("scale", inputs: [x], output: y) { flow in
            guard let gradient = flow.output() else { return }
            try flow.accumulate(into: x) { target, adds in
                if adds {
                    try flow.backend.addScaled(gradient, factor: factor, into: target)
                } else {
                    try flow.backend.scale(gradient, by: factor, into: target)
                }
            }
        }
    }

    private func gradient(_ tape: Tape, _ variable: Variable) throws -> [Float] {
        try #require(tape.gradient(of: variable)).floats()
    }

    @Test func `starts from several roots, each with its seed`() throws {
        let tape = Tape(backend: backend)
        let x = tape.leaf(try values())
        let (y, z) = (try scaled(x, by: 3, on: tape), try scaled(x, by: 5, on: tape))
        try tape.addRoot(y, seed: 2)
        let seed = try values(seed: 9)
        try tape.addRoot(z, seed: seed)
        try tape.addRoot(z, seed: 1)
        try tape.addRoot(x, seed: 0.5)
        let before = seed.floats()
        try tape.backward()
        expectClose(try gradient(tape, x), before.map { 6 + 5 * Double($0) + 5 + 0.5 }, within: 1e-6, "x")
        #expect(seed.floats() == before, "a seed is not written")
    }

    @Test func `ignores a root without weight or gradient`() throws {
        let tape = Tape(backend: backend)
        let x = tape.leaf(try values())
        try tape.addRoot(x, seed: 0)
        try tape.addRoot(.constant(try values()), seed: 1)
        try tape.backward()
        #expect(tape.gradient(of: x) == nil)
    }

    @Test(arguments: [BackwardSchedule.reverse, .overlapping])
    func `sums the gradients of a value that is used three times`(schedule: BackwardSchedule) throws {
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let tape = Tape(backend: backend)
            let x = tape.leaf(try values())
            let y = try scaled(x, by: 2, on: tape)
            var uses: [Variable] = []
            for kind in order {
                switch kind {
                case 0: uses.append(try scaled(y, by: 3, on: tape))
                case 1: uses.append(try addScaled(y, by: 5, on: tape))
                default: uses.append(try tape.add(y, y))
                }
            }
            let sum = try tape.add(try tape.add(uses[0], uses[1]), uses[2])
            try tape.addRoot(sum, seed: 1)
            try tape.backward(schedule: schedule)
            #expect(try gradient(tape, x).allSatisfy { $0 == 2 * (3 + 5 + 2) }, "order \(order)")
        }
    }

    @Test func `does not let one use write over the gradient of another`() throws {
        let tape = Tape(backend: backend)
        let (x, y) = (tape.leaf(try values()), tape.leaf(try values(seed: 2)))
        // The gradient of the sum goes to both sides as one tensor, and each side's adjoint overwrites what it takes.
        let sum = try tape.add(try scaled(x, by: 10, on: tape), try scaled(y, by: 100, on: tape))
        try tape.addRoot(sum, seed: 1)
        try tape.backward()
        #expect(try gradient(tape, x).allSatisfy { $0 == 10 })
        #expect(try gradient(tape, y).allSatisfy { $0 == 100 })
    }

    @Test func `keeps gradients apart that are views of one storage`() throws {
        let tape = Tape(backend: backend)
        let (a, b) = (tape.leaf(try values(4)), tape.leaf(try values(4)))
        let (x, y) = (try scaled(a, by: 10, on: tape), try scaled(b, by: 100, on: tape))
        let joined = try backend.empty(Shape(8), .f32)
        try backend.copy(x.tensor, into: joined[0..<4])
        try backend.copy(y.tensor, into: joined[4..<8])
        let whole = tape.record("join", inputs: [x, y], output: joined) { flow in
            guard let gradient = flow.takeOutput() else { return }
            try flow.accumulate(gradient[0..<4], into: x)
            try flow.accumulate(gradient[4..<8], into: y)
            // A second contribution from the same storage.
            try flow.accumulate(gradient[4..<8], into: x)
        }
        let seed = try backend.allocator.tensor((1...8).map(Float.init), Shape(8))
        try tape.addRoot(whole, seed: seed)
        try tape.backward()
        #expect(try gradient(tape, a) == [60, 80, 100, 120])
        #expect(try gradient(tape, b) == [500, 600, 700, 800])
        #expect(seed.floats() == (1...8).map(Float.init))
    }

    @Test func `runs no adjoint that no gradient reaches, unless it always runs`() throws {
        let tape = Tape(backend: backend)
        let x = tape.leaf(try values())
        let ran = Mutex<[String]>([])
        for (name, runsAlways) in [("idle", false), ("exchange", true)] {
            _ = tape.record(name, inputs: [x], outputs: [x.tensor], runsAlways: runsAlways) { _ in
                ran.withLock { $0.append(name) }
            }
        }
        try tape.backward()
        let names = ran.withLock { $0 }
        #expect(names == ["exchange"])
    }

    @Test func `keeps nothing and records nothing when idle`() throws {
        let tape = Tape(backend: backend, isRecording: false)
        let live = backend.allocator.statistics.totalLive
        var x = tape.leaf(try values())
        for _ in 0..<20 { x = try scaled(x, by: 2, on: tape) }
        #expect(!x.needsGradient)
        #expect(backend.allocator.statistics.totalLive - live <= 256)
        try tape.addRoot(x, seed: 1)
        try tape.backward()
        #expect(tape.gradient(of: x) == nil)
    }

    @Test func `releases what an adjoint needs as soon as it has run`() throws {
        let tape = Tape(backend: backend)
        let start = backend.allocator.statistics.totalLive
        var x = tape.leaf(try backend.allocator.random(Shape(10_000), seed: 1))
        let held = Mutex<[Int]>([])
        for _ in 0..<5 {
            let kept = try backend.allocator.random(Shape(10_000), seed: 2)
            let input = x
            let allocator = backend.allocator
            x = tape.record("keep", inputs: [x], output: try backend.empty(Shape(10_000), .f32)) { flow in
                held.withLock { $0.append(allocator.statistics.totalLive) }
                guard let gradient = flow.takeOutput(), kept.count > 0 else { return }
                try flow.accumulate(gradient, into: input)
            }
        }
        try tape.addRoot(x, seed: 1)
        x = .constant(try values())
        try tape.backward()
        let sizes = held.withLock { $0 }
        #expect(sizes.count == 5)
        for (earlier, later) in zip(sizes, sizes.dropFirst()) { #expect(later <= earlier - 2 * 40_000, "\(sizes)") }
        // What is left is the leaf's gradient and the constant.
        #expect(backend.allocator.statistics.totalLive - start < 3 * 45_056)
    }

    @Test func `passes an adjoint's error on`() throws {
        struct Broken: Error {}
        let tape = Tape(backend: backend)
        let x = tape.leaf(try values())
        let y = tape.record("broken", inputs: [x], output: x.tensor) { _ in throw Broken() }
        try tape.addRoot(y, seed: 1)
        #expect(throws: Broken.self) { try tape.backward() }
    }

    @Test func `with an overlapping schedule starts exchanges early and waits late`() throws {
        let tape = Tape(backend: backend)
        let order = Mutex<[String]>([])
        func node(_ name: String, _ kind: Tape.NodeKind, _ x: Variable) throws -> Variable {
            tape.record(name, kind: kind, inputs: [x], outputs: [try backend.empty(x.shape, .f32)]) { flow in
                order.withLock { $0.append(name) }
                if let gradient = flow.takeOutput() { try flow.accumulate(gradient, into: x) }
            }[0]
        }
        let x = tape.leaf(try values())
        // An exchange beside a dense path, joined at the end, recorded in the order that hides nothing.
        let dense = try node("dense 2", .compute, try node("dense 1", .compute, x))
        let exchanged = try node("finish", .finish, try node("start", .start, x))
        try tape.addRoot(try tape.add(exchanged, dense), seed: 1)
        try tape.backward(schedule: .overlapping)
        let names = order.withLock { $0 }
        #expect(names == ["finish", "dense 2", "dense 1", "start"])
        #expect(try gradient(tape, x).allSatisfy { $0 == 2 })
    }

    @Test func `refuses a schedule that visits a producer before its consumer`() async {
        await #expect(processExitsWith: .failure) {
            let backend = CPUBackend(threadCount: 1)
            let tape = Tape(backend: backend)
            let x = tape.leaf(try backend.zeros(Shape(4), .f32))
            let y = try tape.add(try tape.add(x, x), x)
            try tape.addRoot(y, seed: 1)
            try tape.backward(schedule: .custom { Array($0.names.indices) })
        }
    }
}

@Suite struct `A checkpoint` {
    let backend = CPUBackend(threadCount: 2)

    @Test func `counts roots inside once, and passes unused outputs by`() throws {
        let tape = Tape(backend: backend)
        let x = tape.leaf(try backend.allocator.random(Shape(5), seed: 1))
        let fixed = Variable.constant(try backend.allocator.random(Shape(5), seed: 2))
        let outputs = try tape.checkpoint("block", inputs: [x, fixed]) { inner, inputs in
            let sum = try inner.add(inputs[0], inputs[1])
            try inner.addRoot(sum, seed: 7)
            return [try inner.add(sum, sum), inputs[0]]
        }
        try tape.addRoot(outputs[0], seed: 1)
        try tape.backward()
        #expect(try #require(tape.gradient(of: x)).floats() == Array(repeating: 9, count: 5))
    }

    @Test func `nests`() throws {
        let tape = Tape(backend: backend)
        let x = tape.leaf(try backend.allocator.random(Shape(5), seed: 1))
        let y = try tape.checkpoint("outer", inputs: [x]) { outer, inputs in
            let doubled = try outer.checkpoint("inner", inputs: inputs) { [try $0.add($1[0], $1[0])] }
            return [try outer.add(doubled[0], inputs[0])]
        }
        try tape.addRoot(y[0], seed: 1)
        try tape.backward()
        #expect(try #require(tape.gradient(of: x)).floats() == Array(repeating: 3, count: 5))
    }
}
