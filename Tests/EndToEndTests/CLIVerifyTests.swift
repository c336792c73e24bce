import ApusTestSupport
import Foundation
import Testing

/// `apus verify device`: what agrees, what does not, and what cannot be compared.
@Suite struct CLIVerifyTests {
    private static let hasDevice = access("/dev/nvidiactl", F_OK) == 0
    private let scratch: TrainScratch

    init() throws { scratch = try TrainScratch() }

    private func arguments(_ more: [String], device: String = "cpu") -> [String] {
        ["verify", "device", "\(scratch.path)/tiny.yaml", "--device", device] + more
    }

    private func number(_ object: [String: Any], _ key: String) throws -> Double {
        try #require((object[key] as? NSNumber)?.doubleValue, "\(key) in \(object)")
    }

    @Test func `other threads and recomputed blocks come to the same`() throws {
        let result = try CLI.run(
            arguments(["--set-other", "training.threads=2", "--set-other", "training.checkpointing=true"]))
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
        let lines = result.output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(
            lines[0].split(separator: " ").joined(separator: " ") == "step loss cpu loss cpu norm cpu norm cpu off")
        let rows = lines[1...2].map { $0.split(separator: " ") }
        #expect(rows.map { $0[0] } == ["1", "8"])
        for row in rows { #expect(row.count == 6 && row[1] == row[2] && row[3] == row[4] && row[5] == "0.0") }
        #expect(
            lines[3...].joined(separator: "\n") == """

                loss at most 0.0 off (step 1), gradient norm at most 0.0 off (step 1); 1.0e-3 is allowed
                the same: 8 steps on the processor and on cpu

                """)
        #expect(scratch.names("") == ["text.txt", "tiny.yaml"], "nothing is written")
    }

    @Test func `both train in f32, so that bf16 shows`() throws {
        let same = try CLI.run(arguments(["--steps", "3", "--tolerance", "0", "--json"]))
        #expect(same.status == 0, "\(same.errors)")
        let report = try same.object()
        #expect(report["agrees"] as? Bool == true && report["first_different_step"] is NSNull)
        #expect(report["device"] as? String == "cpu")
        #expect(try #require(report["steps"] as? [[String: Any]]).compactMap { $0["step"] as? Int } == [1, 2, 3])

        let bf16 = ["--steps", "3", "--json", "--set-other", "training.precision=bf16"]
        let strict = try CLI.run(arguments(bf16 + ["--tolerance", "1e-6"]))
        #expect(strict.status == 1 && strict.errors.isEmpty)
        let loose = try CLI.run(arguments(bf16 + ["--tolerance", "0.1"]))
        #expect(loose.status == 0, "\(loose.output)")
        #expect(try strict.object()["first_different_step"] as? Int == 1)
    }

    @Test(arguments: [("seed=4", 1), ("training.optimizer.learning_rate=0.02", 2)])
    func `what differs ends with status 1, and the step in which it begins`(_ change: String, _ step: Int) throws {
        let result = try CLI.run(arguments(["--steps", "4", "--set-other", change]))
        #expect(result.status == 1 && result.errors.isEmpty, "\(result.errors)")
        #expect(
            result.output.hasSuffix("\nDIFFERENT: the processor and cpu part in step \(step)\n"), "\(result.output)")
        let report = try CLI.run(arguments(["--steps", "4", "--set-other", change, "--json"])).object()
        #expect(report["agrees"] as? Bool == false && report["first_different_step"] as? Int == step)
        let steps = try #require(report["steps"] as? [[String: Any]])
        for key in ["loss", "gradient_norm"] {
            let worst = try #require(report[key] as? [String: Any])
            let differences = try steps.map { step in
                let reference = try number(step, "\(key)_reference")
                return abs(try number(step, key) - reference) / reference
            }
            let largest = try #require(differences.max())
            #expect(abs(try number(worst, "largest_difference") / largest - 1) < 1e-6 && largest > 0)
            #expect(worst["step"] as? Int == differences.firstIndex(of: largest).map { $0 + 1 })
        }
    }

    @Test func `a run that is not finite on the device is different from there on`() throws {
        let change = ["--set-other", "training.optimizer.learning_rate=1e30"]
        let result = try CLI.run(arguments(change))
        #expect(result.status == 1 && result.errors.isEmpty, "\(result.errors)")
        #expect(result.output.contains("\nDIFFERENT: step "), "\(result.output)")
        #expect(result.output.contains(" on cpu is not finite, first seen in "), "\(result.output)")
        let report = try CLI.run(arguments(change + ["--json"])).object()
        #expect(try #require(report["not_finite_in"] as? String).isEmpty == false)
        #expect((report["gradient_norm"] as? [String: Any])?["largest_difference"] as? String == "inf")
        #expect(try #require(report["steps"] as? [[String: Any]]).count < 8)
    }

    @Test func `what cannot be compared is refused`() throws {
        try CLI.expectRefusal(
            arguments(["--set-other", "training.micro_batch=4"]), "training.micro_batch differs", "--set")
        try CLI.expectRefusal(arguments(["--set-other", "model.experts.count=8"]), "model differs")
        try CLI.expectRefusal(arguments(["--steps", "9"]), "--steps is 9, but training.steps is 8")
        try CLI.expectRefusal(arguments(["--set-other", "training.stepz=4"]), "training.stepz", "did you mean")
        try CLI.expectRefusal(["verify", "device", "\(scratch.path)/none.yaml", "--device", "cpu"], "none.yaml")
        try CLI.expectRefusal(arguments(["--set", "data.path=\(scratch.path)/none"]), "\(scratch.path)/none")
    }

    @Test(arguments: [["--device", "auto"], ["--tolerance", "-1"], ["--tolerance", "nan"], ["--steps", "0"]])
    func `a wrong use ends with status 64`(_ more: [String]) throws {
        let result = try CLI.run(["verify", "device", "\(scratch.path)/tiny.yaml"] + more)
        #expect(result.status == 64 && result.errors.contains("Usage:"), "\(result.errors)")
    }

    @Test(.enabled(if: !hasDevice, "needs a machine without a GPU"))
    func `without a GPU there is nothing to compare with`() throws {
        try CLI.expectRefusal(["verify", "device", "\(scratch.path)/tiny.yaml"], "--device cuda", "--device cpu")
    }

    @Test(.enabled(if: hasDevice, "no CUDA device"))
    func `a GPU trains as the processor does`() throws {
        let result = try CLI.run(arguments([], device: "cuda"))
        #expect(result.status == 0, "\(result.output)\(result.errors)")
    }
}
