import ApusTestSupport
import Foundation
import Testing

/// Commands that write one result are killed at any moment: it is there whole, or not at all.
@Suite struct ToolKillTests {
    private static let kills = ProcessInfo.processInfo.environment["APUS_SOAK"] == "1" ? 100 : 8
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    /// Kills the command with `arguments(out)` again and again; `read` gives what is at a path, `nil` for nothing.
    private func killAgainAndAgain(
        _ arguments: (String) -> [String], _ read: (String) throws -> [String: [UInt8]]?
    ) throws {
        let folder = try scratch.makeFolder("results")
        let whole = scratch.file("whole")
        let clock = ContinuousClock()
        let begin = clock.now
        let first = try CLI.run(arguments(whole))
        var length = clock.now - begin
        #expect(first.status == 0, "\(first.errors)")
        let expected = try #require(try read(whole))
        var generator = SeededGenerator(seed: 31)
        var (absent, half) = (0, 0)
        for _ in 0..<Self.kills {
            let command = try ChildProcess.apus(arguments("\(folder)/out"))
            let time = Double.random(in: 0...1, using: &generator)
            usleep(UInt32(clamping: Int(time * Double(length.components.attoseconds / 1_000_000_000_000))))
            command.send(SIGKILL)
            let end = command.wait()
            // The first run may have been slow: what comes too late makes the next kills earlier.
            if end != .signal(SIGKILL) { length /= 2 }
            let found = try read("\(folder)/out")
            #expect(found == nil || found == expected, "half a result")
            #expect(end == .signal(SIGKILL) || found == expected)
            if found == nil { absent += 1 }
            if folderNames(folder).contains(where: { $0.contains(".tmp-") }) { half += 1 }
            _ = try? FileManager.default.removeItem(atPath: "\(folder)/out")
        }
        #expect(absent > 0, "every kill came too late")
        let last = try CLI.run(arguments("\(folder)/out"))
        #expect(last.status == 0, "\(last.errors)")
        #expect(try read("\(folder)/out") == expected)
        #expect(folderNames(folder) == ["out"], "\(half) kills left something behind")
    }

    /// The files of a folder.
    private func folder(_ path: String) throws -> [String: [UInt8]]? {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        return Dictionary(uniqueKeysWithValues: try folderNames(path).map { ($0, try fileBytes("\(path)/\($0)")) })
    }

    private func text(lines: Int) throws -> String {
        try scratch.write(
            "book.txt",
            text: (0..<lines).map { "Line \($0): the swift sleeps on the wing, \($0 * 7919 % 1000).\n" }.joined())
    }

    @Test func `data prepare`() throws {
        let text = try text(lines: 100_000)
        try killAgainAndAgain(
            { ["data", "prepare", text, "--tokenizer", "bytes", "--shard-tokens", "500000", "--out", $0] }, folder)
    }

    @Test func `tokenizer train`() throws {
        let text = try text(lines: 20_000)
        let file = { (path: String) in
            FileManager.default.fileExists(atPath: path) ? ["": try fileBytes(path)] : nil
        }
        try killAgainAndAgain({ ["tokenizer", "train", text, "--vocab", "600", "--out", $0] }, file)
    }

    @Test func convert() throws {
        let source = try goldenFolder("mixtral")
        try killAgainAndAgain({ ["convert", "import", source, "--out", $0] }, folder)
    }

    @Test func upcycle() throws {
        // Large enough for kills to meet the writing.
        let text = try text(lines: 200)
        let recipe = try scratch.write(
            "dense.yaml",
            text: """
                model: {layers: 2, width: 256, heads: 4, feed_forward_width: 1024}
                data: {path: \(text), sequence_length: 32}
                training: {steps: 1, batch: 1, precision: f32, threads: 1}
                """)
        let run = scratch.file("dense")
        let trained = try CLI.run(["train", recipe, "--out", run])
        #expect(trained.status == 0, "\(trained.errors)")
        // The recipe in the folder names the folder, which is another for the first result.
        let weights = { (path: String) in
            try folder(path)?.filter { $0.key.hasPrefix("model") || $0.key == "config.json" }
        }
        try killAgainAndAgain({ ["upcycle", run, "--experts", "8", "--noise", "0.1", "--out", $0] }, weights)
    }
}
