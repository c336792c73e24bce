import ApusTestSupport
import Foundation
import Testing

/// `apus train` as a user meets it: what it writes, what it says, and what it refuses.
@Suite struct TrainTests {
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    @Test func `a run writes metrics, its recipe and checkpoints, in plain lines when piped`() throws {
        let command = try scratch.train()
        #expect(scratch.names("run") == ["checkpoints", "metrics.jsonl", "recipe.yaml", "tensorboard"])
        #expect(scratch.steps() == [6, 8])
        let metrics = try scratch.metrics()
        #expect(metrics.compactMap { $0["step"] as? Int } == Array(1...8))
        let names = [
            "step", "loss", "balance_loss", "z_loss", "dropped_fraction", "grad_norm", "lr", "tokens_per_second", "mfu",
            "peak_bytes", "step_seconds", "expert_share",
        ]
        for line in metrics {
            for name in names.dropLast() { #expect(line[name] is NSNumber, "\(name)") }
            let shares = try #require(line["expert_share"] as? [String: [Double]])
            #expect(Set(shares.keys) == ["0", "1"])
            for share in shares.values { #expect(share.count == 4 && abs(share.reduce(0, +) - 1) < 1e-3) }
        }
        #expect(metrics.map { $0["held_out_loss"] != nil } == (1...8).map { $0 % 4 == 0 })
        let losses = try scratch.losses()
        #expect(abs(losses[0] - log(257)) < 0.3 && losses[7] < losses[0] - 0.3, "\(losses)")

        #expect(!command.output.contains("\r") && !command.output.contains("\u{1B}"))
        let lines = command.output.split(separator: "\n").filter { $0.hasPrefix("step ") }
        #expect(lines.map { $0.prefix(8) } == ["step 2/8", "step 4/8", "step 6/8", "step 8/8"])
        #expect(command.output.contains("layer  peak/mean  evenness"))
        #expect(command.output.contains("\(scratch.path)/run/checkpoints/step-00000008"))
        #expect(command.output.contains("\(scratch.path)/run/metrics.jsonl"))
        #expect(command.errors.isEmpty, "\(command.errors)")
    }

    @Test func `the resolved recipe trains the same model`() throws {
        try scratch.train(set: ["model.experts.count=5"])
        let again = try ChildProcess.apus(
            ["train", "\(scratch.path)/run/recipe.yaml", "--out", "\(scratch.path)/again"])
        #expect(again.wait() == .exit(0), "\(again.errors)")
        #expect(try scratch.losses("again") == scratch.losses("run"))
        scratch.expectSameEnd("run", "again")
        #expect(scratch.bytes("run/recipe.yaml") == scratch.bytes("again/recipe.yaml"))
    }

    @Test func `further steps by resuming are those of one longer run`() throws {
        try scratch.train(["--steps", "12"], out: "whole")
        try scratch.train()
        try scratch.train(["--resume", "--steps", "12"])
        #expect(try scratch.losses() == scratch.losses("whole"))
        scratch.expectSameEnd("run", "whole")
    }

    @Test(arguments: [SIGINT, SIGTERM])
    func `a signal saves, and the command it shows goes on`(_ signal: Int32) throws {
        let settings = ["output.save_every=0", "data.path=\(scratch.path)/text.txt"]
        try scratch.train(["--steps", "400"], out: "whole", set: settings)
        let command = try ChildProcess.apus(scratch.arguments(["--steps", "400"], set: settings))
        command.wait { scratch.lines() >= 3 }
        command.send(signal)
        #expect(command.wait() == .exit(0), "\(command.errors)")
        let steps = scratch.steps()
        #expect(steps.count == 1 && (3..<400).contains(steps[0]), "\(steps)")
        #expect(command.output.contains("stopped after step \(steps.first ?? 0), saved in "))
        let shown = try #require(command.output.split(separator: "\n").last { $0.contains("apus train ") })
        let words = shown.split(separator: " ").map(String.init)
        #expect(words.first == "apus" && words.last == "--resume")
        let resumed = try ChildProcess.apus(Array(words.dropFirst()))
        #expect(resumed.wait() == .exit(0), "\(resumed.errors)")
        #expect(try scratch.losses() == scratch.losses("whole"))
        scratch.expectSameEnd("run", "whole")
    }

    @Test(arguments: [(SIGINT, SIGINT), (SIGINT, SIGTERM), (SIGTERM, SIGINT)])
    func `the second signal ends the program at once, without a save`(_ first: Int32, _ second: Int32) throws {
        // Steps of some seconds, so that both signals meet the same one.
        let long = [
            "model.width=256", "model.layers=6", "model.experts.width=512", "training.batch=64",
            "training.micro_batch=64", "output.save_every=0", "training.evaluate_every=0",
        ]
        let command = try ChildProcess.apus(scratch.arguments(["--steps", "400"], set: long))
        command.wait { scratch.lines() >= 1 }
        command.send(first)
        // Until the handler has run: two signals of a kind that wait together are one.
        command.wait { !command.hasPendingSignal }
        usleep(20_000)
        try #require(!command.hasEnded, "a step must last longer than two signals")
        command.send(second)
        #expect(command.wait() == .exit(128 + second), "\(command.errors)")
        #expect(scratch.steps().isEmpty && !command.output.contains("stopped after"))
    }

    @Test func `a dead expert and a collapsed layer are told while the run goes on`() throws {
        // Tokens that are all alike have one expert, and next to no learning leaves it so.
        try scratch.write("text.txt", Array(repeating: 97, count: 4000))
        let settings = [
            "model.experts.count=6", "model.experts.choices=1", "model.experts.policy=dropless",
            "model.experts.router.jitter=0", "model.experts.losses.balance=0", "training.evaluate_every=0",
            "training.optimizer.learning_rate=1e-9",
        ]
        let command = try scratch.train(["--steps", "24"], set: settings)
        let lines = command.output.split(separator: "\n").map(String.init)
        for layer in 0...1 {
            let dead = lines.filter { $0.hasPrefix("warning: layer \(layer): expert ") }
            #expect(dead.count == 1 && dead[0].contains(" got no token for 20 steps; raise "), "\(command.output)")
            #expect(dead.first?.contains("model.experts.losses.balance") == true)
            let collapsed = lines.filter { $0.hasPrefix("warning: layer \(layer) has collapsed: 1 of 6 experts get ") }
            #expect(collapsed.count == 1 && collapsed[0].contains("100.0 % of the tokens"), "\(command.output)")
        }
        let warned = try #require(lines.firstIndex { $0.hasPrefix("warning: ") })
        #expect(lines[..<warned].last?.hasPrefix("step 18/24") == true)
        #expect(lines[warned...].contains { $0.hasPrefix("step 20/24") })
    }

    /// What is asked for, after a run of eight steps, and what the refusal says.
    static let refusals: [(arguments: [String], says: [String])] = [
        ([], ["run' holds a run already", "--resume", "--out"]),
        (["--resume", "--set", "seed=4"], ["seed 3, not 4", "the recipe it began with"]),
        (["--resume", "--set", "model.experts.count=8"], ["experts", "the recipe it began with"]),
        (["--resume", "--set", "data.sequence_length=16"], ["data.sequence_length 32, not 16"]),
        (["--resume", "--set", "training.precision=f32"], ["training.precision bf16, not f32"]),
        (["--resume", "--out", "/tmp/apus-no-such-run"], ["holds no checkpoint to resume from"]),
        (["--resume", "--set", "data.path=/nonexistent.txt"], ["'/nonexistent.txt' cannot be read", "data.path"]),
        (["--set", "model.expert.count=8"], ["did you mean", "experts"]),
        (["--device", "tpu"], ["auto", "cpu", "cuda"]),
        (["--steps", "0"], ["training.steps"]),
    ]

    /// What is refused only where there is no GPU.
    private static let withoutGPU: [(arguments: [String], says: [String])] =
        access("/dev/nvidiactl", F_OK) == 0 ? [] : [(["--device", "cuda"], ["--device cuda:", "--device cpu"])]

    @Test func `refusals say what was wrong and harm nothing`() throws {
        try scratch.train()
        let before = try [scratch.bytes("run/metrics.jsonl"), scratch.bytes("run/recipe.yaml")].map { try #require($0) }
        for (arguments, says) in Self.refusals + Self.withoutGPU {
            let command = try ChildProcess.apus(scratch.arguments(arguments))
            let end = command.wait()
            #expect(end != .exit(0) && end != .signal(SIGILL) && end != .signal(SIGTRAP), "\(arguments)")
            for part in says { #expect(command.errors.contains(part), "\(arguments): \(command.errors)") }
        }
        try scratch.write(
            "text.txt", Array("another text, as long as it takes to be one ".utf8) + Array(repeating: 65, count: 4000))
        let command = try ChildProcess.apus(scratch.arguments(["--resume", "--steps", "9"]))
        #expect(command.wait() != .exit(0))
        #expect(command.errors.contains("is not the text that the run began with"), "\(command.errors)")
        #expect(scratch.steps() == [6, 8])
        #expect(scratch.bytes("run/metrics.jsonl") == before[0] && scratch.bytes("run/recipe.yaml") == before[1])
    }

    @Test(
        arguments: [
            (nil, "cannot be read"), ([], "is empty"), ([72, 105, 0, 33], "is not text: byte 0 at offset 2"),
            (Array(repeating: 65, count: 30), "tokens of training text"),
        ] as [([UInt8]?, String)])
    func `text that cannot be trained on is refused before anything is written`(_ text: [UInt8]?, _ says: String) throws
    {
        if let text { try scratch.write("bad.txt", text) }
        let command = try ChildProcess.apus(scratch.arguments(set: ["data.path=\(scratch.path)/bad.txt"]))
        #expect(command.wait() == .exit(1))
        #expect(command.errors.contains("bad.txt' ") && command.errors.contains(says), "\(command.errors)")
        #expect(scratch.names("run").isEmpty)
    }

    @Test func `too little memory is told with the request, what is held and a key to lower`() throws {
        let settings = ["training.memory_limit=1MiB", "model.width=64", "model.experts.width=64"]
        let command = try ChildProcess.apus(scratch.arguments(set: settings))
        #expect(command.wait() == .exit(1))
        for part in ["out of memory: ", " asked for ", "held ", "of the 1 MiB allowed", "parameters ", "Lower "] {
            #expect(command.errors.contains(part), "\(command.errors)")
        }
    }

    @Test func `a step that does not fit names the keys that make it smaller`() throws {
        let settings = ["training.memory_limit=3MiB", "training.batch=64", "training.micro_batch=64"]
        let command = try ChildProcess.apus(scratch.arguments(set: settings))
        #expect(command.wait() == .exit(1))
        let keys = ["training.micro_batch", "training.checkpointing: true", "data.sequence_length"]
        for part in ["out of memory: ", " asked for ", "of the 3 MiB allowed", "activations "] + keys {
            #expect(command.errors.contains(part), "\(command.errors)")
        }
        #expect(command.errors.contains("no checkpoint was saved"), "\(command.errors)")
    }

    @Test func `a loss that is no number ends the run at the last good checkpoint`() throws {
        try scratch.train()
        let good = try #require(scratch.bytes("run/checkpoints/step-00000008/model.safetensors"))
        let wild = ["training.optimizer.learning_rate=1e30", "output.save_every=0"]
        let command = try ChildProcess.apus(scratch.arguments(["--resume", "--steps", "40"], set: wild))
        #expect(command.wait() == .exit(1))
        #expect(command.errors.contains("is not finite") && command.errors.contains("first seen in the "))
        #expect(command.errors.contains("training.optimizer.learning_rate"), "\(command.errors)")
        // The steps taken before are saved too; whoever holds them for astray removes them.
        #expect(scratch.steps().prefix(2) == [6, 8])
        #expect(scratch.bytes("run/checkpoints/step-00000008/model.safetensors") == good)
        for step in scratch.steps().dropFirst(2) {
            try FileManager.default.removeItem(atPath: "\(scratch.path)/run/checkpoints/step-0000000\(step)")
        }
        try scratch.train(["--resume", "--steps", "10"])
        #expect(try scratch.metrics().compactMap { $0["step"] as? Int } == Array(1...10))
    }
}
