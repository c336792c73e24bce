import ApusTestSupport
import Foundation
import Testing

/// Training on ranks that a launcher has started, as processes.
@Suite(.serialized)
struct RanksTrainingTests {
    @Test(
        .enabled(if: Ranks.mpirun != nil, Ranks.need),
        arguments: [
            ["--tensor", "2", "--expert", "2", "--dtd", "--checkpointing", "--cac"], ["--expert", "4", "--zero", "2"],
            ["--tensor", "2", "--set", "layout.sequence_parallel=true", "--set", "layout.expert_tensor=false"],
        ])
    func `a layout computes over MPI what one rank computes`(layout: [String]) throws {
        let scratch = try TrainScratch()
        let outcome = try Ranks.run(4, ["verify", "layout", "\(scratch.path)/tiny.yaml", "--json"] + layout)
        #expect(outcome.end == .exit(0), "\(outcome.errors) \(outcome.output)")
        let report = try #require(
            try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any],
            "one object, from one rank: \(outcome.output)")
        #expect(report["agrees"] as? Bool == true)
        #expect((report["layout"] as? String)?.hasPrefix("4 ranks") == true)
        #expect((report["choices"] as? Int ?? 0) > 0)
    }

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `ranks that do not fit the layout are refused, once, with one that works`() throws {
        let scratch = try TrainScratch()
        let outcome = try Ranks.run(3, scratch.arguments(set: ["layout.tensor=2"]))
        #expect(outcome.end != .exit(0))
        #expect(outcome.errors.count == 1, "\(outcome.errors)")
        let words = outcome.errors.joined()
        #expect(words.contains("layout.tensor is 2, which does not divide 3 ranks"), "\(words)")
        #expect(words.contains("nearest layout that works"), "\(words)")
        #expect(scratch.names("run").isEmpty, "nothing is written")
    }

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `a recipe that cannot be read is told of once`() throws {
        let scratch = try TrainScratch()
        let outcome = try Ranks.run(2, scratch.arguments(set: ["layout.tensors=2"]))
        #expect(outcome.end != .exit(0))
        #expect(outcome.errors.count == 1 && outcome.errors[0].contains("did you mean"), "\(outcome.errors)")
    }

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `ranks with different recipes are refused`() throws {
        let scratch = try TrainScratch()
        let outcome = Ranks.Outcome(
            try Ranks.start(1, scratch.arguments(), others: scratch.arguments(set: ["training.clip_norm=2"])))
        #expect(outcome.end != .exit(0))
        #expect(outcome.errors.count == 1, "\(outcome.errors)")
        #expect(
            outcome.errors.joined().contains("rank 1 was started with another recipe than rank 0"), "\(outcome.errors)")
        #expect(outcome.errors.joined().contains("clip_norm: 2.0"), "\(outcome.errors)")
    }
}
