import ApusKernels
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

// Shape letters: T tokens, V vocabulary.

@Suite struct `Distillation` {
    private static let targets = [4, -1, 0, 2, -100, 3]
    private static let (tokens, vocabulary) = (6, 37)
    let backend = CPUBackend(threadCount: 2)

    private func logits(seed: UInt64, _ backend: CPUBackend, rowPadding: Int = 3) throws -> Tensor {
        try backend.random(Self.tokens, Self.vocabulary, seed: seed, scale: 3, rowPadding: rowPadding)
    }

    /// The logs and differences, each (T).
    private struct Sums {
        let difference, teacherLog, studentLog: Tensor

        init(_ teacher: Tensor, _ student: Tensor, _ targets: Tensor, _ temperature: Float, _ backend: CPUBackend)
            throws
        {
            let tokens = student.shape[0]
            (difference, teacherLog, studentLog) = (
                try backend.sentinel(tokens), try backend.sentinel(tokens), try backend.sentinel(tokens)
            )
            try backend.divergence(
                teacher: teacher, student: student, targets: targets, temperature: temperature, difference: difference,
                teacherLog: teacherLog, studentLog: studentLog)
        }

        /// Each token's divergence, in nats.
        var divergences: [Double] {
            zip(difference.doubles, zip(teacherLog.doubles, studentLog.doubles)).map { $0 - $1.0 + $1.1 }
        }
    }

    @Test(arguments: [0.5, 1, 4] as [Float])
    func `the divergence is nothing between equals, and else what it is by definition`(_ temperature: Float) throws {
        let (teacher, student) = (try logits(seed: 1, backend), try logits(seed: 2, backend))
        let targets = try backend.allocator.integers(Self.targets)
        let none = try Sums(teacher, teacher, targets, temperature, backend)
        #expect(none.divergences.allSatisfy { abs($0) < 1e-6 })
        let found = try Sums(teacher, student, targets, temperature, backend)
        let (from, to) = (teacher.doubles, student.doubles)
        func shares(_ values: [Double], _ row: Int) -> [Double] {
            let powers = values[row * Self.vocabulary..<(row + 1) * Self.vocabulary].map {
                exp($0 / Double(temperature))
            }
            return powers.map { $0 / powers.reduce(0, +) }
        }
        let expected = Self.targets.enumerated().map { row, target -> Double in
            guard target >= 0 else { return 0 }
            return zip(shares(from, row), shares(to, row)).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) }
        }
        for (value, wanted) in zip(found.divergences, expected) {
            #expect(abs(value - wanted) <= 1e-5 * max(1, wanted))
        }
        #expect(expected[0] > 0.1)
    }

    @Test func `parts of the vocabulary combine to the whole`() throws {
        let (teacher, student) = (try logits(seed: 1, backend), try logits(seed: 2, backend))
        let targets = try backend.allocator.integers(Self.targets)
        let whole = try Sums(teacher, student, targets, 2, backend)
        let parts = try [0..<11, 11..<37].map { columns in
            try Sums(teacher.columns(columns), student.columns(columns), targets, 2, backend)
        }
        for row in 0..<Self.tokens where Self.targets[row] >= 0 {
            let logs = parts.map { $0.teacherLog.doubles[row] }
            let log = Glibc.log(logs.reduce(0) { $0 + exp($1) })
            #expect(abs(log - whole.teacherLog.doubles[row]) < 1e-5)
            let mean = zip(parts, logs).reduce(0) { $0 + exp($1.1 - log) * $1.0.difference.doubles[row] }
            #expect(abs(mean - whole.difference.doubles[row]) < 1e-5)
        }
    }

    @Test(arguments: [DType.f32, .bf16])
    func `the gradient is the one that differences show`(_ dtype: DType) throws {
        let (teacher, student) = (try logits(seed: 1, backend), try logits(seed: 2, backend, rowPadding: 0))
        let targets = try backend.allocator.integers(Self.targets)
        let term = DistillationTerm(weight: 2, temperature: 1.5)
        func loss() throws -> Double {
            let (losses, sums) = (try backend.sentinel(Self.tokens), try backend.sentinel(Self.tokens))
            try backend.crossEntropy(student, targets: targets, loss: losses, logSumExp: sums)
            let divergences = try Sums(teacher, student, targets, term.temperature, backend).divergences
            return 0.5 * zip(losses.doubles, divergences).reduce(0) { $0 + $1.0 + Double(term.weight) * $1.1 }
        }
        let (losses, sums) = (try backend.sentinel(Self.tokens), try backend.sentinel(Self.tokens))
        try backend.crossEntropy(student, targets: targets, loss: losses, logSumExp: sums)
        let logs = try Sums(teacher, student, targets, term.temperature, backend)
        let gradient = try backend.sentinel(Self.tokens, Self.vocabulary, dtype: dtype, rowPadding: 1)
        func backward(into gradient: Tensor) throws {
            try backend.distillationBackward(
                teacher: teacher, student: student, targets: targets, term, logSumExp: sums,
                teacherLog: logs.teacherLog, studentLog: logs.studentLog,
                scale: try backend.allocator.tensor([Float(0.5)], Shape(1)), into: gradient)
        }
        try backward(into: gradient)
        if dtype == .f32 {
            try GradientCheck().expect(gradient.floats(), of: student, "student's logits", loss: loss)
            let expected = gradient.floats()
            try backward(into: student)
            #expect(student.floats() == expected, "in place")
        } else {
            let whole = try backend.sentinel(Self.tokens, Self.vocabulary)
            try backward(into: whole)
            expectClose(gradient, whole.doubles, "a bf16 gradient")
        }
    }

    @Test func `a target of another rank's has no place here`() throws {
        let (teacher, student) = (try logits(seed: 1, backend), try logits(seed: 2, backend))
        let ids = Self.targets.map { $0 < 0 ? -1 : Self.vocabulary }
        let targets = try backend.allocator.integers(ids)
        let term = DistillationTerm(weight: 0, temperature: 1)
        let logs = try Sums(teacher, student, targets, 1, backend)
        let gradient = try backend.sentinel(Self.tokens, Self.vocabulary)
        try backend.distillationBackward(
            teacher: teacher, student: student, targets: targets, term, logSumExp: logs.studentLog,
            teacherLog: logs.teacherLog, studentLog: logs.studentLog,
            scale: try backend.allocator.tensor([Float(1)], Shape(1)), into: gradient)
        // Probabilities alone: each row that counts adds to one.
        let values = gradient.doubles
        for row in 0..<Self.tokens {
            let sum = values[row * Self.vocabulary..<(row + 1) * Self.vocabulary].reduce(0, +)
            #expect(abs(sum - (ids[row] < 0 ? 0 : 1)) < 1e-5)
        }
    }

    @Test func `does not overflow, and does not depend on the number of threads`() throws {
        let huge = try backend.allocator.tensor((0..<50).map { Float($0) * 1e3 }, Shape(1, 50))
        let targets = try backend.allocator.integers([3])
        #expect(try Sums(huge, huge, targets, 1, backend).divergences == [0])
        try expectSameBitsForAnyThreadCount("distillation") { backend in
            let (teacher, student) = (try backend.random(150, 333, seed: 1), try backend.random(150, 333, seed: 2))
            let targets = try backend.allocator.integers((0..<150).map { $0 * 2 })
            let sums = try Sums(teacher, student, targets, 2, backend)
            let gradient = try backend.empty(student.shape, .f32)
            try backend.distillationBackward(
                teacher: teacher, student: student, targets: targets, DistillationTerm(weight: 1, temperature: 2),
                logSumExp: sums.studentLog, teacherLog: sums.teacherLog, studentLog: sums.studentLog,
                scale: try backend.allocator.tensor([Float(1)], Shape(1)), into: gradient)
            return [sums.difference, sums.teacherLog, sums.studentLog, gradient]
        }
    }
}
