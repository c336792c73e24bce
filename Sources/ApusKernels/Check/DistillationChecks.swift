import ApusTensor
import Glibc

// Shape letters: T tokens, V vocabulary.

extension OpCheck {
    /// A token that counts, one at the row's end, one that does not count, and one whose target is in no column.
    private static func targets(_ v: Int) -> [Int] { [0, v - 1, -1, v + 3, 2] }

    private static func log(ofSum values: ArraySlice<Double>) -> Double {
        let top = values.max() ?? 0
        return top + Glibc.log(values.reduce(0) { $0 + exp($1 - top) })
    }

    private static func rows(_ values: [Double], _ v: Int, over temperature: Double) -> [ArraySlice<Double>] {
        let scaled = values.map { $0 / temperature }
        return stride(from: 0, to: scaled.count, by: v).map { scaled[$0..<$0 + v] }
    }

    static let distillation: [[OpCheck]] = [
        make("divergence", [.f32]) { probe in
            for (v, temperature) in [(5, 1.0), (257, 2), (5000, 0.5)] {
                let targets = targets(v)
                let t = targets.count
                let (teacher, student) = (try probe.draw(t, v, spread: 3), try probe.draw(t, v, mean: 1, spread: 2))
                let results = try (0..<3).map { _ in try probe.empty(t) }
                try probe.backend.divergence(
                    teacher: teacher.tensor, student: student.tensor, targets: probe.put(targets, t),
                    temperature: Float(temperature), difference: results[0], teacherLog: results[1],
                    studentLog: results[2])
                let pairs = Array(
                    zip(rows(teacher.values, v, over: temperature), rows(student.values, v, over: temperature)))
                func expected(_ value: (ArraySlice<Double>, ArraySlice<Double>) -> Double) -> [Double] {
                    zip(targets, pairs).map { $0 < 0 ? 0 : value($1.0, $1.1) }
                }
                probe.expect(
                    results[0],
                    expected { from, to in
                        let sum = log(ofSum: from)
                        return zip(from, to).reduce(0) { $0 + exp($1.0 - sum) * ($1.0 - $1.1) }
                    })
                probe.expect(results[1], expected { from, _ in log(ofSum: from) })
                probe.expect(results[2], expected { _, to in log(ofSum: to) })
            }
        },
        make("distillation backward") { probe in
            let (v, term) = (257, DistillationTerm(weight: 3, temperature: 2))
            let targets = targets(v)
            let t = targets.count
            let teacher = try probe.draw(t, v, spread: 3, dtype: .f32)
            let student = try probe.draw(t, v, mean: 1, spread: 2, dtype: .f32)
            let (ids, gradient) = (try probe.put(targets, t), try probe.empty(t, v))
            let sums = try (0..<4).map { _ in try probe.empty(t, dtype: .f32) }
            let scale = try probe.put([0.25], Shape(1), .f32)
            try probe.backend.divergence(
                teacher: teacher.tensor, student: student.tensor, targets: ids, temperature: term.temperature,
                difference: sums[0], teacherLog: sums[1], studentLog: sums[2])
            try probe.backend.divergence(
                teacher: teacher.tensor, student: student.tensor, targets: ids, temperature: 1, difference: sums[0],
                teacherLog: try probe.empty(t, dtype: .f32), studentLog: sums[3])
            try probe.backend.distillationBackward(
                teacher: teacher.tensor, student: student.tensor, targets: ids, term, logSumExp: sums[3],
                teacherLog: sums[1], studentLog: sums[2], scale: scale.tensor, into: gradient)
            let (own, cool) = (softmax(student.values, v), softmax(student.values.map { $0 / 2 }, v))
            let other = softmax(teacher.values.map { $0 / 2 }, v)
            probe.expect(
                gradient,
                own.indices.map { place in
                    let target = targets[place / v]
                    guard target >= 0 else { return 0 }
                    return 0.25 * (own[place] - (place % v == target ? 1 : 0) + 1.5 * (cool[place] - other[place]))
                })
        },
    ]
}
