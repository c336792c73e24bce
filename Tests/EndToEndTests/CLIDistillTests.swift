import ApusTestSupport
import Foundation
import Testing

/// `apus distill`: a run that learns from another.
struct CLIDistillTests {
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    private func distill(_ teacher: String, _ more: [String] = [], set: [String] = []) throws -> (
        end: ChildProcess.End, errors: String
    ) {
        let train = scratch.arguments(more, out: "student", set: set)
        let command = try ChildProcess.apus(["distill", teacher] + train.dropFirst())
        return (command.wait(), command.errors)
    }

    private func divergences() throws -> [Double?] {
        let text = try #require(textFile("\(scratch.path)/student/metrics.jsonl"))
        return try text.split(separator: "\n").map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            return object?["divergence"] as? Double
        }
    }

    @Test func `a student begins with its teacher's weights, learns from it for a stage, and goes on when resumed`()
        throws
    {
        try scratch.train(out: "teacher")
        let settings = ["distillation.start=teacher", "distillation.until=6"]
        let first = try distill("\(scratch.path)/teacher", ["--steps", "4"], set: settings)
        #expect(first.end == .exit(0), "\(first.errors)")
        #expect(try divergences().count == 4)
        let rest = try distill("\(scratch.path)/teacher", ["--resume"], set: settings)
        #expect(rest.end == .exit(0), "\(rest.errors)")
        let found = try divergences()
        #expect(found.map { $0 != nil } == [true, true, true, true, true, true, false, false])
        // In bf16 and with a router that drops by chance in training, it is near and not the same.
        #expect(try #require(found[0]) < 0.05)
        let recipe = try #require(textFile("\(scratch.path)/student/recipe.yaml"))
        #expect(recipe.contains("teacher: \"\(scratch.path)/teacher\"") && recipe.contains("start: teacher"))
    }

    @Test func `a teacher that is not there, or does not fit, is one line before anything is written`() throws {
        let missing = try distill("\(scratch.path)/nobody")
        #expect(missing.end != .exit(0))
        #expect(missing.errors.contains("nobody"), "\(missing.errors)")
        try scratch.train(out: "teacher")
        let other = try distill("\(scratch.path)/teacher", set: ["model.width=16", "distillation.start=teacher"])
        #expect(other.end != .exit(0))
        #expect(other.errors.contains("cannot begin with"), "\(other.errors)")
        #expect(other.errors.contains("distillation.start random"), "\(other.errors)")
        #expect(scratch.names("student").isEmpty)
    }
}
