import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, V vocabulary, D model width.

@Suite struct `The language-model loss` {
    let backend = CPUBackend(threadCount: 2)
    static let targets = [3, -1, 0, 12, -100, 7, 7, 1, -1, 5, 2]

    private func fixture(chunk: Int, precision: Precision = .f32) throws -> (LanguageModelLoss, Placed, Tensor, Tensor)
    {
        let weight = parameter("head", 13, 8)
        let placed = try Placed([weight], backend, precision: precision)
        let x = try backend.allocator.random(Shape(Self.targets.count, 8), precision.modelType, seed: 2)
        return (
            LanguageModelLoss(weight: weight, chunk: chunk), placed, x, try backend.allocator.integers(Self.targets)
        )
    }

    @Test(arguments: [1, 4, 11, 4096])
    func `has the gradients that differences show`(chunk: Int) throws {
        let (layer, placed, x, targets) = try fixture(chunk: chunk)
        let tape = Tape(backend: backend)
        let leaf = tape.leaf(x)
        let result = try layer(leaf, targets: targets, scale: 0.125, on: tape)
        try tape.addRoot(result.total, seed: 2)
        try tape.backward()
        func loss() throws -> Double {
            let idle = Tape(backend: backend, isRecording: false)
            let result = try layer(.constant(x), targets: targets, scale: 0.125, on: idle)
            return 2 * 0.125 * result.perToken.doubles.reduce(0, +)
        }
        let check = GradientCheck()
        try check.expect(try #require(tape.gradient(of: leaf)).floats(), of: x, "hidden states", loss: loss)
        let weight = try #require(placed.store["head"])
        try check.expect(
            try #require(try weight.gradient()).floats(), of: try weight.acquire(on: .cpu), "head, chunks of \(chunk)",
            loss: loss)
    }

    @Test(arguments: [1, 4, 11, 4096])
    func `is the scaled sum over targets that count`(chunk: Int) throws {
        let (layer, placed, x, targets) = try fixture(chunk: chunk)
        let tape = Tape(backend: backend, isRecording: false)
        let result = try layer(.constant(x), targets: targets, scale: 0.125, on: tape)
        let weight = try #require(placed.store["head"]).acquire(on: .cpu).doubles
        let hidden = x.doubles
        let expected = Self.targets.enumerated().map { token, target -> Double in
            guard target >= 0 else { return 0 }
            let logits = (0..<13).map { v in (0..<8).reduce(0) { $0 + hidden[token * 8 + $1] * weight[v * 8 + $1] } }
            return log(logits.reduce(0) { $0 + exp($1) }) - logits[target]
        }
        expectClose(result.perToken, expected, "loss of each token")
        expectClose(result.total.tensor, [0.125 * expected.reduce(0, +)], "total")
    }

    @Test func `trains the head on constant hidden states`() throws {
        let (layer, placed, x, targets) = try fixture(chunk: 4)
        let trained = Tape(backend: backend)
        try trained.addRoot(try layer(trained.leaf(x), targets: targets, scale: 1, on: trained).total, seed: 1)
        try trained.backward()
        let expected = try placed.gradients()["head"] ?? []
        try placed.zeroGradients()
        let frozen = Tape(backend: backend)
        try frozen.addRoot(try layer(.constant(x), targets: targets, scale: 1, on: frozen).total, seed: 1)
        try frozen.backward()
        #expect(try placed.gradients()["head"] == expected)
    }

    @Test func `never holds more logits than a chunk's`() throws {
        let weight = parameter("head", 4096, 8)
        let placed = try Placed([weight], backend)
        let x = try backend.allocator.random(Shape(512, 8), seed: 2)
        let targets = try backend.allocator.integers(Array(repeating: 5, count: 512))
        func peak(_ chunk: Int) throws -> Int {
            backend.allocator.resetPeaks()
            let before = backend.allocator.statistics.totalLive
            let tape = Tape(backend: backend)
            let result = try LanguageModelLoss(weight: weight, chunk: chunk)(
                tape.leaf(x), targets: targets, scale: 1, on: tape)
            try tape.addRoot(result.total, seed: 1)
            try tape.backward()
            return backend.allocator.statistics.totalPeak - before
        }
        let whole = 512 * 4096 * 4
        #expect(try peak(4096) >= whole)
        // One chunk's logits, and the product's workspace.
        #expect(try peak(64) < whole / 2)
        #expect(placed.store.parameters.count == 1)
    }
}
