import ApusTestSupport
import Foundation
import Testing

/// A run of several processes, from its files.
@Suite(.serialized)
struct RanksResumeTests {
    private static let settings = ["training.precision=f32", "training.micro_batch=4", "output.save_every=4"]

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `a run goes on with other ranks, as one rank would`() throws {
        let scratch = try TrainScratch()
        try scratch.train(out: "whole", set: Self.settings)
        for (ranks, steps, layout) in [
            (2, 3, ["layout.expert=2", "layout.zero=2"]), (4, 5, ["layout.tensor=2", "layout.expert=2"]),
            (1, 7, []), (4, 8, ["layout.expert=4"]),
        ] {
            let resumes = steps == 3 ? [] : ["--resume"]
            let arguments = scratch.arguments(resumes, set: Self.settings + layout + ["training.steps=\(steps)"])
            let outcome = try Ranks.run(ranks, arguments)
            #expect(outcome.end == .exit(0), "\(ranks) ranks: \(outcome.errors) \(outcome.output)")
        }
        let (expected, found) = try (scratch.losses("whole"), scratch.losses())
        #expect(found.count == 8)
        for (step, (one, many)) in zip(expected, found).enumerated() {
            #expect(abs(one - many) <= 1e-3 * one, "step \(step + 1): \(many) instead of \(one)")
        }
    }

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `every rank leaves its part of metrics, logs and trace`() throws {
        let scratch = try TrainScratch()
        let trace = "\(scratch.path)/trace.json"
        let set = Self.settings + ["layout.tensor=2", "layout.expert=2", "layout.data=2", "output.log_every=1"]
        let outcome = try Ranks.run(4, scratch.arguments(["--trace", trace], set: set))
        #expect(outcome.end == .exit(0), "\(outcome.errors)")
        #expect(outcome.output.contains("4 ranks as tensor 2, expert 2, data 2, ZeRO-1"), "\(outcome.output)")
        for metrics in try scratch.metrics() {
            let collectives = try #require(metrics["collectives"] as? [String: [String: Any]])
            let exchange = try #require(collectives["expert2 uneven all-to-all"])
            #expect((exchange["calls"] as? Int ?? 0) > 0 && (exchange["bytes"] as? Int ?? 0) > 0)
            let (seconds, exposed) = (exchange["seconds"] as? Double, exchange["exposed_seconds"] as? Double)
            #expect((seconds ?? -1) > 0 && (exposed ?? -1) >= 0)
            #expect(Set(collectives.keys).isSuperset(of: ["tensor all-reduce", "data reduce-scatter"]))
        }
        for rank in 1..<4 {
            let lines = textFile("\(scratch.path)/run/logs/rank-\(rank).log")?.split(separator: "\n") ?? []
            #expect(lines.count == 8 && lines.allSatisfy { $0.contains("waiting for other ranks") })
        }
        let text = try #require(textFile(trace))
        let events = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [[String: Any]])
        for rank in 0..<4 {
            let own = events.filter { $0["pid"] as? Int == rank && $0["ph"] as? String == "X" }
            #expect(Set(own.compactMap { $0["tid"] as? Int }).isSuperset(of: [0, 1]), "rank \(rank)")
            #expect(own.contains { ($0["name"] as? String)?.hasPrefix("uneven all-to-all expert2 layer 0") == true })
        }
    }

    @Test(.enabled(if: Ranks.mpirun != nil, Ranks.need))
    func `a stop reaches one rank and all save the same step`() throws {
        let scratch = try TrainScratch(steps: 100_000)
        let command = try Ranks.start(
            2, scratch.arguments(set: Self.settings + ["layout.expert=2", "training.evaluate_every=0"]))
        command.wait { scratch.lines() >= 3 }
        // The launcher hands it to all ranks, each at its own time.
        kill(command.id, SIGUSR1)
        #expect(command.wait() == .exit(0), "\(command.errors)")
        #expect(command.output.contains("stopped after step"), "\(command.output)")
        let last = try #require(scratch.steps().last)
        #expect(try scratch.metrics().count == last)
        let files = scratch.names("run/checkpoints/\(scratch.names("run/checkpoints").last ?? "")")
        #expect(files.contains("model-00002-of-00002.safetensors") && files.contains("optimizer.pieces.json"))
    }
}
