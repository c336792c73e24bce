import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, V vocabulary, D model width.

/// A student's loss with a teacher, whose head and width are its own.
@Suite struct DistillationLossTests {
    private static let targets = [3, -1, 0, 12, -100, 7, 7, 1, -1, 5, 2]
    private static let vocabulary = 13
    private static let term = DistillationTerm(weight: 1.5, temperature: 2)
    private let backend = CPUBackend(threadCount: 2)

    private struct Fixture {
        let layer: LanguageModelLoss
        let placed: Placed
        let x: Tensor
        let targets: Tensor
        let teacher: TeacherStates
        let teacherHead: Placed
    }

    private func fixture(chunk: Int, _ precision: Precision = .f32) throws -> Fixture {
        let (weight, other) = (parameter("head", Self.vocabulary, 8), parameter("teacher", Self.vocabulary, 6))
        let (placed, head) = (try Placed([weight], backend, precision: precision), try Placed([other], backend))
        let count = Self.targets.count
        return Fixture(
            layer: LanguageModelLoss(weight: weight, chunk: chunk), placed: placed,
            x: try backend.allocator.random(Shape(count, 8), precision.modelType, seed: 2),
            targets: try backend.allocator.integers(Self.targets),
            teacher: TeacherStates(
                states: try backend.allocator.random(Shape(count, 6), seed: 3), head: LanguageModelLoss(weight: other),
                term: Self.term), teacherHead: head)
    }

    @Test(arguments: [1, 4, 11, 4096])
    func `is cross-entropy and divergence by definition, and has the gradients that differences show`(chunk: Int) throws
    {
        let fixture = try fixture(chunk: chunk)
        let tape = Tape(backend: backend)
        let leaf = tape.leaf(fixture.x)
        let result = try fixture.layer(
            leaf, targets: fixture.targets, scale: 0.125, teacher: fixture.teacher, on: tape)
        let (own, other) = (
            try fixture.layer.logits(fixture.x, backend).doubles,
            try fixture.teacher.logits(0..<Self.targets.count, backend).doubles
        )
        func shares(_ values: [Double], _ row: Int, over temperature: Double) -> [Double] {
            let powers = values[row * Self.vocabulary..<(row + 1) * Self.vocabulary].map { exp($0 / temperature) }
            return powers.map { $0 / powers.reduce(0, +) }
        }
        let rows = Self.targets.enumerated()
        let divergence = rows.map { row, target -> Double in
            guard target >= 0 else { return 0 }
            return zip(shares(other, row, over: 2), shares(own, row, over: 2)).reduce(0) {
                $0 + $1.0 * log($1.0 / $1.1)
            }
        }
        let entropy = rows.map { row, target in target < 0 ? 0 : -log(shares(own, row, over: 1)[target]) }
        expectClose(result.perToken, entropy, "cross-entropy of each token")
        expectClose(try #require(result.divergence), divergence, "divergence of each token")
        let total = 0.125 * zip(entropy, divergence).reduce(0) { $0 + $1.0 + 1.5 * $1.1 }
        expectClose(result.total.tensor, [total], "total")

        try tape.addRoot(result.total, seed: 2)
        try tape.backward()
        func loss() throws -> Double {
            let idle = Tape(backend: backend, isRecording: false)
            let result = try fixture.layer(
                .constant(fixture.x), targets: fixture.targets, scale: 0.125, teacher: fixture.teacher, on: idle)
            let divergence = try #require(result.divergence).doubles
            return 2 * 0.125 * zip(result.perToken.doubles, divergence).reduce(0) { $0 + $1.0 + 1.5 * $1.1 }
        }
        let check = GradientCheck()
        try check.expect(try #require(tape.gradient(of: leaf)).floats(), of: fixture.x, "hidden states", loss: loss)
        let weight = try #require(fixture.placed.store["head"])
        try check.expect(
            try #require(try weight.gradient()).floats(), of: try weight.acquire(on: .cpu), "head, chunks of \(chunk)",
            loss: loss)
        let untouched = try fixture.teacherHead.gradients()["teacher"] ?? []
        #expect(untouched.allSatisfy { $0 == 0 })
    }

    @Test func `in bf16 it is that of f32, rounded`() throws {
        func gradient(_ precision: Precision) throws -> [Float] {
            let fixture = try fixture(chunk: 4, precision)
            let tape = Tape(backend: backend)
            let leaf = tape.leaf(fixture.x)
            let result = try fixture.layer(
                leaf, targets: fixture.targets, scale: 0.125, teacher: fixture.teacher, on: tape)
            try tape.addRoot(result.total, seed: 1)
            try tape.backward()
            return try #require(tape.gradient(of: leaf)).floats()
        }
        expectClose(try gradient(.bf16), try gradient(.f32).map(Double.init), within: 2e-2, "hidden states")
    }

    @Test func `never holds more logits than a chunk's, the teacher's among them`() throws {
        let (weight, other) = (parameter("head", 4096, 8), parameter("teacher", 4096, 8))
        let (placed, head) = (try Placed([weight], backend), try Placed([other], backend))
        let x = try backend.allocator.random(Shape(512, 8), seed: 2)
        let targets = try backend.allocator.integers(Array(repeating: 5, count: 512))
        let states = try backend.allocator.random(Shape(512, 8), seed: 3)
        func peak(_ chunk: Int) throws -> Int {
            backend.allocator.resetPeaks()
            let before = backend.allocator.statistics.totalLive
            let tape = Tape(backend: backend)
            let teacher = TeacherStates(states: states, head: LanguageModelLoss(weight: other), term: Self.term)
            let loss = try LanguageModelLoss(weight: weight, chunk: chunk)(
                tape.leaf(x), targets: targets, scale: 1, teacher: teacher, on: tape)
            try tape.addRoot(loss.total, seed: 1)
            try tape.backward()
            return backend.allocator.statistics.totalPeak - before
        }
        let logits = 512 * 4096 * 4
        #expect(try peak(512) > 2 * logits)
        #expect(try peak(32) < logits)
        _ = (placed, head)
    }
}
