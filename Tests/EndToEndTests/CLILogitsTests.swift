import ApusModels
import ApusTestSupport
import Foundation
import Testing

/// `apus eval --logits` beside the loss.
@Suite struct CLILogitsTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    @Test func `lists that predict nothing have logits and no loss`() throws {
        let tokens = try scratch.write("ids.json", text: "[[], [1]]")
        let file = scratch.file("logits.safetensors")
        let arguments = ["eval", try goldenFolder("mixtral"), "--tokens", tokens, "--logits", file]
        let result = try CLI.run(arguments + ["--json"])
        #expect(result.status == 0, "\(result.errors)")
        let report = try result.object()
        #expect(report["tokens"] as? Int == 0)
        for key in ["nats_per_token", "perplexity", "bits_per_byte", "tokens_per_second"] {
            #expect(report[key] is NSNull, "\(key)")
        }
        let written = try SafetensorsFile(path: file)
        #expect(try [0, 1].map { try written.entry("logits.\($0)").shape[0] } == [0, 1])
        let plain = try CLI.run(arguments)
        #expect(plain.status == 0 && plain.output.contains("there is nothing to predict"), "\(plain.output)")
    }

    @Test func `without logits there is nothing to do, which is an error`() throws {
        let tokens = try scratch.write("ids.json", text: "[[], [1]]")
        try CLI.expectRefusal(["eval", goldenFolder("mixtral"), "--tokens", tokens], "nothing to predict")
    }

    @Test func `the loss beside logits is the one without`() throws {
        let tokens = try scratch.write("ids.json", text: "[[5, 6, 7, 8, 9], [3], [1, 2]]")
        let plain = ["eval", try goldenFolder("olmoe"), "--tokens", tokens, "--json"]
        let reports = try [[], ["--logits", scratch.file("logits.safetensors")]].map {
            try CLI.run(plain + $0).object()
        }
        let losses = try reports.map { try #require($0["nats_per_token"] as? Double) }
        #expect(abs(losses[0] - losses[1]) < 1e-6 * losses[0], "\(losses)")
        #expect(reports.allSatisfy { $0["tokens"] as? Int == 5 })
    }

    @Test func `a window, which logits do not have, is refused beside them`() throws {
        let tokens = try scratch.write("ids.json", text: "[[1, 2, 3]]")
        let result = try CLI.run([
            "eval", try goldenFolder("mixtral"), "--tokens", tokens, "--logits", scratch.file("l"), "--window", "2",
        ])
        #expect(result.status != 0 && result.errors.contains("--window"), "\(result.errors)")
    }
}
