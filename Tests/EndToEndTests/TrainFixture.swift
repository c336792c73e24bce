import ApusTestSupport
import Foundation
import Testing

/// A folder with a recipe of a tiny model and its text, removed at the end of its life.
final class TrainScratch {
    private let folder: ScratchFolder

    init(steps: Int = 8) throws {
        folder = try ScratchFolder()
        var generator = SeededGenerator(seed: 17)
        let words = ["swift", "martin", "expert", "router", "token", "layer", "wing"]
        let text = (0..<800).map { _ in words[Int.random(in: 0..<words.count, using: &generator)] }
        try write("text.txt", Array(text.joined(separator: " ").utf8))
        try write(
            "tiny.yaml",
            Array(
                """
                seed: 3
                model:
                  layers: 2
                  width: 32
                  heads: 2
                  experts:
                    count: 4
                    choices: 2
                    width: 24
                    router: {jitter: 0.02}
                    policy: {capacity: 1.0, order: random}
                    losses: {balance: 0.01, z: 0.001}
                data:
                  path: \(path)/text.txt
                  sequence_length: 32
                  held_out: 0.1
                training:
                  steps: \(steps)
                  batch: 4
                  micro_batch: 2
                  precision: bf16
                  threads: 1
                  evaluate_every: 4
                  evaluate_batches: 1
                  optimizer: {learning_rate: 0.01}
                output:
                  save_every: 2
                  log_every: 2
                """.utf8))
    }

    var path: String { folder.path }

    func write(_ name: String, _ bytes: [UInt8]) throws { try folder.write(name, bytes) }

    /// `train` with the recipe, below this folder.
    func arguments(_ more: [String] = [], out: String = "run", set: [String] = []) -> [String] {
        ["train", "\(path)/tiny.yaml", "--out", "\(path)/\(out)"] + more + set.flatMap { ["--set", $0] }
    }

    /// Trains to the end and expects it to go well.
    @discardableResult
    func train(
        _ more: [String] = [], out: String = "run", set: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> ChildProcess {
        let command = try ChildProcess.apus(arguments(more, out: out, set: set))
        #expect(command.wait() == .exit(0), "\(command.errors)", sourceLocation: sourceLocation)
        return command
    }

    func bytes(_ name: String) -> [UInt8]? { FileManager.default.contents(atPath: "\(path)/\(name)").map { Array($0) } }

    func names(_ folder: String) -> [String] { folderNames("\(path)/\(folder)") }

    /// How many lines a run's metrics have so far.
    func lines(_ out: String = "run") -> Int { bytes("\(out)/metrics.jsonl")?.count { $0 == 0x0A } ?? 0 }

    /// The steps of the checkpoints of a run.
    func steps(_ out: String = "run") -> [Int] { names("\(out)/checkpoints").compactMap { Int($0.dropFirst(5)) } }

    /// The lines of a run's metrics as JSON objects.
    func metrics(_ out: String = "run") throws -> [[String: Any]] {
        let text = try #require(textFile("\(path)/\(out)/metrics.jsonl"))
        return try text.split(separator: "\n").map { line in
            try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(line)")
        }
    }

    /// The losses of a run, a step each.
    func losses(_ out: String = "run") throws -> [Double] {
        try metrics(out).map { try #require($0["loss"] as? Double) }
    }

    /// Expects the newest checkpoints of two runs to be the same step, bit by bit.
    func expectSameEnd(_ left: String, _ right: String, sourceLocation: SourceLocation = #_sourceLocation) {
        let folders = [left, right].map { "\($0)/checkpoints/\(names("\($0)/checkpoints").last ?? "none")" }
        #expect(folders[0].suffix(13) == folders[1].suffix(13), sourceLocation: sourceLocation)
        for file in ["model.safetensors", "optimizer.safetensors", "state.txt"] {
            let (one, other) = (bytes("\(folders[0])/\(file)"), bytes("\(folders[1])/\(file)"))
            #expect(one != nil && one == other, "\(file)", sourceLocation: sourceLocation)
        }
    }
}
