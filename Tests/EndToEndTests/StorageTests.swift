import ApusTestSupport
import Glibc
import Testing

/// Commands on a disk that is full or closed: one line that names the file, nothing left over, nothing lost.
@Suite(.enabled(if: TinyFileSystem.isAvailable, "needs the right to mount a tmpfs"))
struct StorageTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    /// Commands that write to `out` and need more than `mostBytes`.
    private static let mostBytes = 48 << 10

    private func commands(_ out: String) throws -> [[String]] {
        let text = try scratch.write("book.txt", text: (0..<4000).map { "line \($0) of the swift\n" }.joined())
        return [
            ["data", "prepare", text, "--tokenizer", "bytes", "--out", out],
            ["tokenizer", "train", text, "--vocab", "600", "--out", out],
            ["convert", "import", try goldenFolder("mixtral"), "--out", out],
            ["convert", "export", try goldenFolder("olmoe"), "--family", "olmoe", "--out", out],
        ]
    }

    @Test func `a full disk`() throws {
        let disk = try #require(TinyFileSystem(bytes: Self.mostBytes))
        // A tokenizer is small: for it nothing at all is left.
        for (index, command) in try commands("\(disk.path)/out").enumerated() {
            if index == 1 { try fill("\(disk.path)/filler") }
            try CLI.expectRefusal(command, disk.path, "no space left")
            #expect(folderNames(disk.path) == (index == 1 ? ["filler"] : []), "\(command)")
            unlink("\(disk.path)/filler")
        }
    }

    private func fill(_ path: String) throws {
        let file = try #require(fopen(path, "w"))
        let page = [UInt8](repeating: 1, count: 4096)
        while fwrite(page, 1, page.count, file) == page.count, fflush(file) == 0 {}
        fclose(file)
    }

    @Test func `a disk that nobody may write to`() throws {
        let disk = try #require(TinyFileSystem(bytes: 1 << 20))
        try disk.makeReadOnly()
        let train = try TrainScratch()
        let out = "\(disk.path)/out"
        for command in try commands(out) { try CLI.expectRefusal(command, disk.path, "read-only") }
        let run = try CLI.run(train.arguments(["--out", out]))
        #expect(run.status == 1 && run.errors.hasPrefix("error: "), "\(run.errors)")
        #expect(run.errors.contains(disk.path) && run.errors.contains("read-only"), "\(run.errors)")
    }

    @Test func `an output that is a file already is left alone`() throws {
        let out = try scratch.write("out", text: "mine")
        let train = try TrainScratch()
        for command in try commands(out) + [train.arguments(["--out", out])] where command[0] != "tokenizer" {
            try CLI.expectRefusal(command, "'\(out)'")
            #expect(textFile(out) == "mine", "\(command)")
        }
        // A tokenizer's output is a file, and must not be a folder.
        let folder = try scratch.makeFolder("folder")
        try CLI.expectRefusal(try commands(folder)[1], "'\(folder)'", "a folder")
    }

    @Test func `a disk that fills up under a run costs no step that was saved`() throws {
        let train = try TrainScratch()
        let settings = ["output.save_every=1", "training.evaluate_every=0"]
        try train.train(out: "whole", set: settings)
        let size = folderNames("\(train.path)/whole/checkpoints/step-00000008").reduce(0) {
            $0 + (train.bytes("whole/checkpoints/step-00000008/\($1)")?.count ?? 0)
        }
        let disk = try #require(TinyFileSystem(bytes: size * 5 / 2))
        let run = "\(disk.path)/run"
        let arguments = train.arguments(["--out", run], set: settings)
        let command = try ChildProcess.apus(arguments)
        #expect(command.wait() == .exit(1), "\(command.errors)")
        for part in ["no space left", run, "step 2 is saved in '\(run)/checkpoints/step-00000002'", " --resume"] {
            #expect(command.errors.contains(part), "'\(part)' in: \(command.errors)")
        }
        #expect(folderNames("\(run)/checkpoints") == ["step-00000001", "step-00000002"])
        try disk.resize(bytes: size * 8)
        let resumed = try ChildProcess.apus(arguments + ["--resume"])
        #expect(resumed.wait() == .exit(0), "\(resumed.errors)")
        for file in ["model.safetensors", "optimizer.safetensors", "state.txt"] {
            let found = try fileBytes("\(run)/checkpoints/step-00000008/\(file)")
            #expect(found == train.bytes("whole/checkpoints/step-00000008/\(file)"), "\(file)")
        }
    }
}
