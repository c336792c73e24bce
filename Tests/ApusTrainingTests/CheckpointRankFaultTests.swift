import ApusCollectives
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusTraining

/// What goes wrong on one rank goes wrong on all, and costs no checkpoint.
@Suite struct CheckpointRankFaultTests {
    private static let layout = LayoutCase(
        model: CheckpointLayoutTests.model, tensor: 2, expert: .uniform(2), data: 2)

    /// What a rank saw.
    private struct Outcome: Sendable {
        var failures: RankFailures?
        var other: String?
        var loss: Float = 0

        init(_ body: () throws -> Void) {
            do {
                try body()
            } catch let error as RankFailures {
                failures = error
            } catch {
                other = "\(error)"
            }
        }
    }

    /// The optimizer's and the model's files that a rank writes.
    private static func files(of rank: Int, in folder: String) -> (weights: String, state: String) {
        let number = "0000\(rank + 1)-of-0000\(layout.ranks).safetensors"
        return ("\(folder)/model-\(number)", "\(folder)/optimizer-\(number)")
    }

    @Test(arguments: [0, 2], [true, false])
    func `a file that one rank cannot write fails the save on all, and the run goes on`(
        _ failing: Int, _ isBackground: Bool
    ) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let outcomes = try Self.layout.run { rank in
            let saver = try rank.saver(checkpoints)
            try saver.save(rank.state(1))
            _ = try rank.train(1...1)
            if rank.world.rank == failing {
                saver.willWrite = { folder in
                    #expect(mkdir(Self.files(of: failing, in: folder).weights, 0o755) == 0)
                }
            }
            var outcome = Outcome {
                if isBackground {
                    try saver.begin(rank.state(2)).finish()
                } else {
                    try saver.save(rank.state(2))
                }
            }
            saver.willWrite = nil
            outcome.loss = try rank.train(2...2)[0]
            try saver.save(rank.state(3))
            return outcome
        }
        for outcome in outcomes {
            let found = try #require(outcome.failures, "\(outcome)")
            #expect(found.failures.map(\.rank) == [failing])
            #expect(found.failures[0].reason.contains("model-0000\(failing + 1)"), "\(found)")
            #expect("\(found)".contains("rank \(failing)") && "\(found)".contains("step-00000002"), "\(found)")
            #expect(outcome.loss.isFinite)
        }
        #expect(folderNames(checkpoints.path) == ["step-00000001", "step-00000003"])
        #expect(checkpoints.newestGood().step == 3)
    }

    @Test(.enabled(if: TinyFileSystem.isAvailable, "needs the right to mount a tmpfs"))
    func `a full disk leaves the checkpoint before on all ranks`() throws {
        let disk = try #require(TinyFileSystem(bytes: 1 << 20))
        let checkpoints = CheckpointFolder(run: disk.path, keep: 1)
        let outcomes = try Self.layout.run { rank in
            let saver = try rank.saver(checkpoints)
            try saver.save(rank.state(1))
            return Outcome { try saver.begin(rank.state(2)).finish() }
        }
        for outcome in outcomes {
            let found = try #require(outcome.failures, "\(outcome)")
            #expect(found.failures[0].reason.contains("no space left"), "\(found)")
        }
        #expect(folderNames(checkpoints.path) == ["step-00000001"])
        #expect(checkpoints.newestGood().step == 1)
    }

    @Test func `weights that are no numbers on one rank are saved by none`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let places = try Self.layout.run { rank in
            let saver = try rank.saver(checkpoints)
            if rank.world.rank == 3 {
                let weights = rank.trainStep.model.store.groups[0].weights
                rank.backend.fill(weights[0..<1], with: .nan)
            }
            do {
                try saver.save(rank.state(1))
                return ""
            } catch let error as NonFiniteWeightsError {
                return error.place
            }
        }
        #expect(places[0].contains("1 weights of"))
        #expect(Set(places).count == 1)
        #expect(folderNames(checkpoints.path).isEmpty)
    }

    @Test func `what is not to be copied is written before training goes on, a parameter at a time`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let copied = try Self.layout.run { rank in
            // On one rank there is too little.
            let saver = try rank.saver(checkpoints, copyLimit: rank.world.rank == 1 ? 100 : nil)
            rank.backend.allocator.resetPeaks()
            let save = try saver.begin(rank.state(1))
            let statistics = rank.backend.allocator.statistics
            let largest = rank.trainStep.model.store.parameters.map { 4 * $0.shape.count }.max() ?? 0
            // What is put together, and the part that is on its way. The others have copied nothing either, but had
            // taken the memory for it.
            if rank.world.rank == 1 { #expect(statistics.peak[MemoryPurpose.checkpoint.rawValue] < 3 * largest) }
            #expect(save.isWritten)
            try save.finish()
            return save.copiedBytes
        }
        #expect(copied == [0, 0, 0, 0])
        #expect(checkpoints.newestGood().step == 1)
    }

    @Test func `training between copy and end changes nothing that is saved`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let before = Elements(
            try Self.layout.run { rank in
                _ = try rank.train(1...1)
                let elements = try rank.elements()
                let statistics = rank.backend.allocator.statistics
                let save = try rank.saver(checkpoints).begin(rank.state(1))
                let held = rank.backend.allocator.statistics[.checkpoint] - statistics[.checkpoint]
                #expect(held <= save.copiedBytes + save.copiedBytes / 4 + (1 << 18))
                _ = try rank.train(2...4)
                try save.finish()
                return elements
            })
        let found = Elements(try CheckpointLayoutTests.alone.resume(checkpoints, step: 1) { try $0.elements() })
        #expect(found.differences(from: before).isEmpty)
    }

    @Test func `a copy takes no memory that training needs`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let alone = LayoutCase(model: CheckpointLayoutTests.model, data: 1)
        let usual = try CheckpointRank(alone, SingleRank())
        _ = try usual.train(1...1)
        let peak = usual.backend.allocator.statistics.totalPeak
        let bytes = try usual.saver(checkpoints).copyBytes
        for (room, copies) in [(bytes / 2, false), (bytes + bytes / 4 + (1 << 16), true)] {
            let rank = try CheckpointRank(alone, SingleRank(), memoryLimit: peak + room)
            _ = try rank.train(1...1)
            let saver = try rank.saver(checkpoints)
            for step in 2...4 {
                let save = try saver.begin(rank.state(step))
                #expect((save.copiedBytes > 0) == copies)
                _ = try rank.train(step...step)
                try save.finish()
            }
        }
    }

    @Test func `old checkpoints are none any more when a save ends, and gone when the last one does`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 1)
        _ = try Self.layout.run { rank in
            let saver = try rank.saver(checkpoints)
            for step in 1...3 {
                try saver.begin(rank.state(step)).finish(waitsForRemoval: false)
                if rank.world.rank == 0 { #expect(checkpoints.steps() == [step]) }
                try rank.world.barrier()
            }
            try saver.begin(rank.state(4), removing: [3, 77]).finish()
        }
        #expect(folderNames(checkpoints.path) == ["step-00000004"])
    }

    @Test func `a save that is dropped leaves nothing`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        _ = try Self.layout.run { rank in
            _ = try rank.saver(checkpoints).begin(rank.state(1))
            try rank.world.barrier()
        }
        #expect(checkpoints.steps().isEmpty)
    }

    // MARK: Loading

    /// Ways to spoil the optimizer's part of a checkpoint of four ranks.
    enum Damage: String, Sendable, CaseIterable {
        case missingShard, truncated, hole, overlap, otherShape, missingState, unknownVersion

        /// What the message must say.
        var words: [String] {
            switch self {
            case .missingShard: ["optimizer-00002-of-00004.safetensors", "not in the folder"]
            case .truncated: ["optimizer-00002-of-00004.safetensors"]
            case .hole: ["optimizer.pieces.json", "has no piece with elements"]
            case .overlap: ["has elements", "of the whole, which", "has too"]
            case .otherShape: ["is of a parameter of shape"]
            case .missingState: ["has no tensor"]
            case .unknownVersion: ["version 2 is unknown"]
            }
        }

        func apply(to folder: String) throws {
            let shard = CheckpointRankFaultTests.files(of: 1, in: folder).state
            let index = "\(folder)/\(StatePieceIndex.fileName)"
            switch self {
            case .missingShard: return #expect(unlink(shard) == 0)
            case .truncated: return #expect(truncate(shard, try fileBytes(shard).count - 5) == 0)
            case .unknownVersion:
                let text = try #require(textFile(index))
                _ = try AtomicFile.write(text.replacing("\"version\": 1", with: "\"version\": 2"), to: index)
                return
            default: break
            }
            var files = try StatePieceIndex(folder: folder).files
            let file = "optimizer-00002-of-00004.safetensors"
            // A part of a tensor that begins in the middle, so that there is something before it.
            let found = files[file]?.sorted { $0.key < $1.key }.first {
                $0.value.shard == nil && $0.value.elements.lowerBound > 0
            }
            let (name, piece) = try #require(found)
            let moved = piece.elements.lowerBound - 1..<piece.elements.upperBound - 1
            switch self {
            case .hole: files[file]?[name] = nil
            case .overlap:
                files[file]?[name] = StatePieceIndex.Piece(shape: piece.shape, shard: nil, elements: moved)
            case .otherShape:
                files[file]?[name] = StatePieceIndex.Piece(
                    shape: piece.shape + [1], shard: nil, elements: piece.elements)
            default: for key in files.keys { files[key]?[name] = nil }
            }
            _ = try AtomicFile.write(StatePieceIndex(files: files).json, to: index)
        }
    }

    @Test(arguments: Damage.allCases)
    func `a checkpoint that lacks something is refused on all ranks, and says what`(_ damage: Damage) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let four = LayoutCase(model: CheckpointLayoutTests.model, data: 4)
        _ = try four.run { rank in
            for step in 1...2 { try rank.saver(checkpoints).save(rank.state(step)) }
        }
        try damage.apply(to: checkpoints.folder(step: 2))
        for layout in [CheckpointLayoutTests.alone, Self.layout] {
            let texts = try layout.run { rank in
                let (step, damaged) = try checkpoints.newestGood(over: rank.world)
                #expect(step == 1 && damaged.count == 1)
                do {
                    try rank.load(checkpoints, step: 2)
                    return ""
                } catch {
                    return "\(error)"
                }
            }
            #expect(Set(texts).count == 1, "\(texts)")
            for word in damage.words { #expect(texts[0].contains(word), "\(texts[0])") }
        }
    }

    @Test func `all ranks resume from the same step, and read the same state`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 3)
        _ = try Self.layout.run { rank in
            let saver = try rank.saver(checkpoints)
            for step in 1...3 { try saver.save(rank.state(step)) }
        }
        // Only the rank whose share this file is looks at it.
        try scratch.write("checkpoints/step-00000003/model-00003-of-00004.safetensors", [1, 2, 3])
        let found = try Self.layout.run { rank in
            let (step, damaged) = try checkpoints.newestGood(over: rank.world)
            let state = try checkpoints.state(step: step ?? 0, over: rank.world)
            return (step, damaged, state.step)
        }
        for (step, damaged, saved) in found {
            #expect(step == 2 && saved == 2)
            #expect(damaged.count == 1 && damaged[0].contains("model-00003-of-00004"), "\(damaged)")
        }
    }

    @Test func `what a killed world left is cleared by the next save`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        try RunFolder.create("\(checkpoints.path)/step-00000004.tmp-999999")
        try scratch.write("checkpoints/step-00000004.tmp-999999/model-00002-of-00004.safetensors", [1, 2, 3])
        try scratch.write("checkpoints/step-00000004.tmp-999999/optimizer-00001-of-00004.safetensors.tmp-77", [1])
        _ = try Self.layout.run { rank in
            #expect(try checkpoints.newestGood(over: rank.world).step == nil)
            try rank.saver(checkpoints).save(rank.state(1))
        }
        #expect(folderNames(checkpoints.path) == ["step-00000001"])
    }
}
