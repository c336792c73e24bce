import ApusTestSupport
import Foundation
import Testing

/// `apus doctor`, `apus bench` and the help of every command.
@Suite struct CLIMachineTests {
    @Test func `every op computes what its definition says`() throws {
        let result = try CLI.run(["doctor", "--skip-speed", "--json", "--threads", "2"])
        let report = try result.object()
        let checks = try #require(report["checks"] as? [[String: Any]])
        for check in checks { #expect(check["passes"] as? Bool == true, "\(check)") }
        #expect(checks.count > 80)
        #expect(Set(checks.compactMap { $0["dtype"] as? String }) == ["f32", "bf16"])
        #expect(result.status == 0 && report["passes"] as? Bool == true)
        #expect(try #require(report["cores"] as? Int) >= 1)
    }

    @Test func `the checks of some ops, and a GPU beside the processor where there is one`() throws {
        let result = try CLI.run(["doctor", "--skip-speed", "--json", "--only", "rotary"])
        let report = try result.object()
        let checks = try #require(report["checks"] as? [[String: Any]])
        #expect(!checks.isEmpty && checks.allSatisfy { ($0["op"] as? String)?.contains("rotary") == true })
        if access("/dev/nvidiactl", F_OK) != 0 { #expect(report["cuda"] is NSNull) }
        let none = try CLI.run(["doctor", "--only", "no such op"])
        #expect(none.status == 64 && none.errors.contains("no such op"))
    }

    @Test func `portable kernels are checked on a GPU, or not at all`() throws {
        let cpu = try CLI.run(["doctor", "--portable", "--device", "cpu"])
        #expect(cpu.status == 64 && cpu.errors.contains("--device cuda"))
        guard access("/dev/nvidiactl", F_OK) != 0 else { return }
        let none = try CLI.run(["doctor", "--portable"])
        #expect(none.status != 0 && none.output.isEmpty && none.errors.contains("--portable"))
        #expect(none.errors.split(separator: "\n").count == 1, "\(none.errors)")
    }

    @Test func `a block of training steps for each line`() throws {
        let options = ["--interactive", "--warmup", "2", "--preset", "tiny", "--sequence", "32", "--batch", "2"]
        let result = try CLI.run(["bench", "train", "--threads", "1"] + options, input: "2\n3\nquit\n9\n")
        #expect(result.status == 0, "\(result.errors)")
        let lines = result.output.split(separator: "\n")
        #expect(lines.count == 3 && lines[0].hasPrefix("ready "))
        for (line, steps) in zip(lines.dropFirst(), [2, 3]) {
            let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
            #expect((object["step_seconds"] as? [Double])?.count == steps)
            #expect(object["tokens_per_step"] as? Int == 64)
            #expect(object["system_allocations"] as? Int == 0)
        }
    }

    @Test(arguments: [
        ["gemm", "--shape", "64x48x32", "--rounds", "1"], ["gemm", "--shape", "64x48x32", "--precision", "bf16"],
        ["moe-layer", "--tokens", "64", "--width", "32", "--expert-width", "16", "--rounds", "1"],
        [
            "moe-layer", "--tokens", "256", "--width", "32", "--expert-width", "16", "--routing", "zipf",
            "--activation", "gelu",
        ],
        [
            "moe-layer", "--tokens", "256", "--width", "32", "--expert-width", "32", "--block-size", "16",
            "--routing", "zipf", "--bank", "grouped", "--bank", "block-sparse", "--bank", "padded:1",
            "--bank", "padded:all", "--rounds", "1",
        ],
        ["grouped", "--rows", "64", "--experts", "5", "--inputs", "32", "--outputs", "48", "--rounds", "1"],
        [
            "blocksparse", "--tokens", "64", "--width", "32", "--expert-width", "32", "--block-size", "16",
            "--routing", "half", "--rounds", "1", "--precision", "bf16-pure",
        ],
        ["attention", "--shape", "2x4x32x16", "--key-heads", "2", "--rounds", "1", "--device", "cpu"],
        ["routing", "--tokens", "64", "--width", "32", "--rounds", "1"],
        ["generate", "--prompt-length", "8", "--max-tokens", "3", "--rounds", "1"],
    ])
    func `benchmarks print numbers`(_ arguments: [String]) throws {
        let result = try CLI.run(["bench"] + arguments + ["--json", "--threads", "1"])
        #expect(result.status == 0, "\(result.errors)")
        #expect(try result.object()["bench"] as? String == arguments[0])
        #expect(!result.output.contains("nan") && !result.output.contains("inf"))
    }

    @Test func `a layer's figures agree with each other`() throws {
        let sizes = ["--tokens", "64", "--width", "32", "--expert-width", "16", "--experts", "4", "--choices", "2"]
        let result = try CLI.run(
            ["bench", "moe-layer", "--routing", "half", "--rounds", "3", "--threads", "1", "--json"] + sizes)
        let report = try result.object()
        let rows = try #require(report["rows"] as? [Int])
        // Every second token chooses the first expert, and no other token does.
        #expect(rows.reduce(0, +) == 128 && rows[0] == 32)
        let bank = try #require((report["banks"] as? [[String: Any]])?.first)
        func number(_ object: [String: Any], _ key: String) throws -> Double {
            try #require((object[key] as? NSNumber)?.doubleValue, "\(key)")
        }
        let seconds = try number(bank, "seconds")
        let operations = 18.0 * 64 * 2 * 32 * 16
        #expect(abs(try number(bank, "expert_tflops") * 1e12 * seconds / operations - 1) < 1e-6)
        let floor = max(
            try number(report, "gemm_only_seconds"),
            try number(report, "counted_bytes") / number(report, "copy_bytes_per_second"))
        #expect(abs(try number(report, "floor_seconds") / floor - 1) < 1e-6)
        #expect(abs(try number(bank, "of_floor") * seconds / floor - 1) < 1e-6)
        // Three matrices for four experts, read twice, their gradients read and written: less than all that is moved.
        #expect(try number(report, "counted_bytes") > 4 * 4 * 3 * 32 * 16 * 4)
        #expect(try number(bank, "extra_bytes") < number(bank, "peak_bytes"))
    }

    @Test func `the phases of a step are timed, products beside their floor`() throws {
        let result = try CLI.run([
            "bench", "train", "--preset", "tiny", "--batch", "4", "--sequence", "64", "--steps", "2", "--threads", "1",
            "--phases", "--json",
        ])
        #expect(result.status == 0, "\(result.errors)")
        let phases = try #require(try result.object()["phases"] as? [[String: Any]])
        let experts = try #require(phases.first { $0["op"] as? String == "experts" })
        for key in ["forward_seconds", "backward_seconds", "flop", "of_peak"] {
            #expect(try #require(experts[key] as? Double) > 0, "\(key)")
        }
        #expect(phases.contains { $0["op"] as? String == "optimizer" })
        let all = ["forward_seconds", "backward_seconds"].reduce(0) { sum, key in
            phases.reduce(sum) { $0 + ($1[key] as? Double ?? .nan) }
        }
        let step = try #require(try result.object()["traced_step_seconds"] as? Double)
        // The system may take the processor away between two ops.
        #expect(all > 0.25 * step && all <= step * (1 + 1e-9), "\(all) of \(step)")
    }

    @Test(arguments: [
        [], ["train"], ["distill"], ["eval"], ["generate"], ["inspect"], ["convert"], ["convert", "import"],
        ["convert", "export"], ["upcycle"], ["aggregate"], ["prune"],
        ["verify"], ["verify", "device"],
        ["doctor"], ["bench"], ["bench", "gemm"], ["bench", "grouped"], ["bench", "blocksparse"],
        ["bench", "attention"],
        ["bench", "routing"], ["bench", "moe-layer"], ["bench", "train"], ["bench", "generate"],
    ])
    func `help has an example`(_ command: [String]) throws {
        let result = try CLI.run(command + ["--help"])
        #expect(result.status == 0)
        #expect(result.output.contains("Example:") && result.output.contains("apus "))
    }

    @Test func `the version is a version`() throws {
        let parts = try CLI.run(["--version"]).output.split(whereSeparator: { $0 == "." || $0 == "\n" })
        #expect(parts.count == 3 && parts.allSatisfy { Int($0) != nil })
    }
}
