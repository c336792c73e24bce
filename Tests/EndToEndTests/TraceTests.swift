import ApusTestSupport
import Foundation
import Testing

/// `apus train --trace`: what a trace viewer gets.
@Suite struct TraceTests {
    /// A complete event, in microseconds.
    private struct Event {
        let name: String
        let category: String
        let start: Double
        let end: Double

        init(_ fields: [String: Any]) throws {
            name = try #require(fields["name"] as? String)
            category = try #require(fields["cat"] as? String)
            start = try #require(fields["ts"] as? Double)
            end = start + (try #require(fields["dur"] as? Double))
            #expect(fields["pid"] as? Int == 0 && fields["tid"] as? Int == 0)
        }

        var duration: Double { end - start }

        /// Whether `other` lies inside, but for the nanosecond that decimals may lose.
        func holds(_ other: Event) -> Bool { start - 0.002 <= other.start && other.end <= end + 0.002 }
    }

    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    private func events(_ name: String) throws -> [Event] {
        let content = try #require(scratch.bytes(name))
        let all = try #require(try JSONSerialization.jsonObject(with: Data(content)) as? [[String: Any]])
        let names = all.filter { $0["ph"] as? String == "M" }
        #expect(names.compactMap { $0["name"] as? String } == ["process_name", "thread_name"])
        #expect(all.count { $0["ph"] as? String == "X" } == all.count - 2)
        return try all.dropFirst(2).map(Event.init)
    }

    /// A model large enough that what lies between ops is little.
    private let larger = ["model.width=128", "model.experts.width=128", "data.sequence_length=128"]

    @Test(arguments: [false, true])
    func `phases, layers and ops lie inside each other and cover the step`(_ checkpointing: Bool) throws {
        let settings = larger + ["training.checkpointing=\(checkpointing)"]
        // Every step and pass has to be covered in one trace; where the machine interrupted one of them, another is made.
        var uncovered: [String] = []
        for attempt in 1...4 {
            try scratch.train(["--trace", "\(scratch.path)/\(attempt).json"], out: "run\(attempt)", set: settings)
            uncovered = try gaps(in: events("\(attempt).json"), checkpointing)
            if uncovered.isEmpty { break }
        }
        #expect(uncovered.isEmpty, "\(uncovered)")
    }

    /// Expects spans to lie inside each other, in order; the steps and passes that they do not cover.
    private func gaps(in events: [Event], _ checkpointing: Bool) throws -> [String] {
        var gaps: [String] = []
        let steps = events.filter { $0.category == "step" }
        #expect(steps.map(\.name) == ["step 3", "step 4", "step 5"])
        for step in steps {
            let all = events.filter { $0.category == "phase" && step.holds($0) }
            // A checkpoint appears in whichever step has it written.
            let phases = all.filter { $0.name != "publish" }
            let passes = ["forward", "backward", "forward", "backward"]
            let end = step.name == "step 4" ? ["evaluation", "metrics", "checkpoint"] : ["metrics"]
            #expect(
                phases.map(\.name) == ["data"] + passes + ["gradient norm", "optimizer", "routers", "read back"] + end)
            #expect(zip(all, all.dropFirst()).allSatisfy { $0.end <= $1.start + 0.002 }, "one after the other")
            let share = all.reduce(0) { $0 + $1.duration } / step.duration
            if share <= 0.95 { gaps.append("\(step.name): \(share)") }
            for phase in phases where ["forward", "backward"].contains(phase.name) {
                let share = check(phase, events.filter { phase.holds($0) && $0.category != "phase" }, checkpointing)
                if share <= 0.85 { gaps.append("\(step.name), \(phase.name): \(share)") }
            }
        }
        #expect(events.filter { $0.category == "phase" }.allSatisfy { phase in steps.contains { $0.holds(phase) } })
        return gaps
    }

    /// Expects a pass's parts to be the layers in order; the share of it that ops fill.
    private func check(_ phase: Event, _ inside: [Event], _ checkpointing: Bool) -> Double {
        let isForward = phase.name == "forward"
        let parts = inside.filter { $0.category == "part" }
        #expect(parts.map(\.name) == (isForward ? ["layer 0", "layer 1"] : ["layer 1", "layer 0"]))
        let kind = isForward ? "op" : "adjoint"
        let ops = inside.filter { $0.category == kind }
        let outer = ops.filter { op in !ops.contains { $0.start < op.start && $0.holds(op) } }
        let names = Set(inside.filter { op in parts.contains { $0.holds(op) } }.map(\.name))
        #expect(names.isSuperset(of: ["attention", "experts", "router", "combine"]), "\(names)")
        #expect(names.contains("block") == checkpointing)
        #expect(Set(ops.map(\.name)).contains("language_model_loss"))
        return outer.reduce(0) { $0 + $1.duration } / phase.duration
    }

    @Test func `a trace changes no number`() throws {
        try scratch.train()
        try scratch.train(["--trace", "\(scratch.path)/trace.json", "--trace-steps", "8"], out: "traced")
        #expect(try scratch.losses("traced") == scratch.losses("run"))
        scratch.expectSameEnd("run", "traced")
    }

    @Test func `a run shorter than the warm-up is traced to its end`() throws {
        try scratch.train(["--steps", "2", "--trace", "\(scratch.path)/trace.json", "--trace-steps", "1"])
        #expect(try events("trace.json").filter { $0.category == "step" }.map(\.name) == ["step 2"])
        try scratch.train(["--resume", "--steps", "8", "--trace", "\(scratch.path)/more.json", "--trace-steps", "2"])
        #expect(try events("more.json").filter { $0.category == "step" }.map(\.name) == ["step 5", "step 6"])
    }

    @Test func `a trace that cannot be written is refused before the first step`() throws {
        let command = try ChildProcess.apus(scratch.arguments(["--trace", "/nonexistent/trace.json"]))
        #expect(command.wait() == .exit(1))
        #expect(command.errors.contains("/nonexistent"), "\(command.errors)")
        #expect(scratch.steps().isEmpty && scratch.lines() == 0)
        let none = try ChildProcess.apus(scratch.arguments(["--trace-steps", "0"]))
        #expect(none.wait() != .exit(0) && none.errors.contains("--trace-steps is 0"), "\(none.errors)")
    }
}
