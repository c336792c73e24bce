import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusTraining

/// Checkpoints that are damaged, half written or have no room: the last good one is always there.
@Suite struct CheckpointFolderTests {
    /// A run with checkpoints after steps 1 and 2, and the trainer that wrote them.
    private func saved(_ scratch: ScratchFolder, keep: Int = 2, steps: Int = 2) throws -> (CheckpointFolder, Trainer) {
        let checkpoints = CheckpointFolder(run: scratch.path, keep: keep)
        let trainer = try Trainer(TrainingCase.all[0], .bf16)
        for step in 1...steps {
            try trainer.train(step...step)
            try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: step), backend: trainer.backend)
        }
        return (checkpoints, trainer)
    }

    /// Ways to spoil a file of a checkpoint.
    enum Damage: String, Sendable, CaseIterable {
        case flippedBit, truncated, longer, removed

        func apply(to path: String) throws {
            if self == .removed { return #expect(unlink(path) == 0) }
            var content = try fileBytes(path)
            switch self {
            case .flippedBit: content[content.count * 2 / 3] ^= 4
            case .truncated: content.removeLast(3)
            case .longer: content.append(0)
            case .removed: break
            }
            let file = try #require(fopen(path, "w"))
            defer { fclose(file) }
            #expect(fwrite(content, 1, content.count, file) == content.count)
        }
    }

    @Test(
        arguments: ["model.safetensors", "optimizer.safetensors", "state.txt", "config.json", "checksums.json"],
        Damage.allCases)
    func `the checkpoint before a damaged one counts, and the bad file is named`(
        _ file: String, _ damage: Damage
    ) throws {
        // A byte behind the end of text may be white space.
        if file == "checksums.json", damage == .longer { return }
        let scratch = try ScratchFolder()
        let (checkpoints, trainer) = try saved(scratch)
        try damage.apply(to: "\(checkpoints.folder(step: 2))/\(file)")
        let (step, damaged) = checkpoints.newestGood()
        #expect(step == 1)
        #expect(damaged.count == 1)
        // A flipped bit of the manifest may leave it readable, and another file then seems wrong.
        if file != "checksums.json" || damage == .removed {
            #expect(damaged.first?.contains("step-00000002/\(file)") == true, "\(damaged)")
        } else {
            #expect(damaged.first?.contains("step-00000002") == true, "\(damaged)")
        }
        try checkpoints.load(step: 1, into: trainer.model, trainer.optimizer, backend: trainer.backend)
    }

    @Test func `when all are damaged, there is none, and each is told`() throws {
        let scratch = try ScratchFolder()
        let (checkpoints, _) = try saved(scratch)
        for step in 1...2 { try Damage.flippedBit.apply(to: "\(checkpoints.folder(step: step))/model.safetensors") }
        let (step, damaged) = checkpoints.newestGood()
        #expect(step == nil)
        #expect(damaged.count == 2)
    }

    @Test func `what a dead writer left is passed over and cleared away by the next save`() throws {
        let scratch = try ScratchFolder()
        let (checkpoints, trainer) = try saved(scratch)
        for name in ["step-00000002.tmp-999999", "step-00000007.tmp-999998"] {
            try RunFolder.create("\(checkpoints.path)/\(name)")
            try scratch.write("checkpoints/\(name)/model.safetensors", [1, 2, 3])
        }
        #expect(checkpoints.steps() == [1, 2])
        #expect(checkpoints.newestGood().step == 2)
        try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 3), backend: trainer.backend)
        #expect(folderNames(checkpoints.path) == ["step-00000002", "step-00000003"])
    }

    @Test(arguments: [(1, [5]), (2, [4, 5]), (3, [3, 4, 5]), (9, [1, 2, 3, 4, 5])])
    func `the newest stay`(_ keep: Int, _ expected: [Int]) throws {
        let scratch = try ScratchFolder()
        #expect(try saved(scratch, keep: keep, steps: 5).0.steps() == expected)
    }

    @Test func `a step that is saved again takes the place of the old one`() throws {
        let scratch = try ScratchFolder()
        let (checkpoints, trainer) = try saved(scratch)
        let before = try fileBytes("\(checkpoints.folder(step: 2))/model.safetensors")
        try trainer.train(3...3)
        try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 2), backend: trainer.backend)
        #expect(try fileBytes("\(checkpoints.folder(step: 2))/model.safetensors") != before)
        #expect(checkpoints.newestGood().step == 2)
        #expect(folderNames(checkpoints.path) == ["step-00000001", "step-00000002"])
    }

    @Test func `another model's checkpoint is refused with the first difference`() throws {
        let scratch = try ScratchFolder()
        let (checkpoints, _) = try saved(scratch)
        var other = TrainingCase.all[0].model
        other.heads = 4
        other.keyValueHeads = 4
        let trainer = try Trainer(other, TrainingCase.all[0].training(.bf16))
        let error = #expect(throws: TrainingCheckpointError.self) {
            try checkpoints.load(step: 2, into: trainer.model, trainer.optimizer, backend: trainer.backend)
        }
        let text = "\(try #require(error))"
        #expect(text.contains("\"heads\": 2") && text.contains("\"heads\": 4"), "\(text)")
    }

    @Test(.enabled(if: TinyFileSystem.isAvailable, "needs the right to mount a tmpfs"))
    func `a full disk leaves the checkpoint before`() throws {
        let disk = try #require(TinyFileSystem(bytes: 768 << 10))
        let checkpoints = CheckpointFolder(run: disk.path, keep: 1)
        let trainer = try Trainer(TrainingCase.all[0], .f32)
        try trainer.train(1...1)
        try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 1), backend: trainer.backend)
        let good = try trainer.tensors.map(\.tensor.bits)
        try trainer.train(2...2)
        let error = #expect(throws: FileError.self) {
            try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 2), backend: trainer.backend)
        }
        if case .noSpace? = error {} else { Issue.record("\(String(describing: error))") }
        #expect(folderNames(checkpoints.path) == ["step-00000001"])
        #expect(checkpoints.newestGood().step == 1)
        try checkpoints.load(step: 1, into: trainer.model, trainer.optimizer, backend: trainer.backend)
        #expect(try trainer.tensors.map(\.tensor.bits) == good)
    }

    @Test func `a limit on file sizes leaves the checkpoint before`() async throws {
        let scratch = try ScratchFolder()
        await #expect(processExitsWith: .success) { [path = scratch.path as String] in
            let checkpoints = CheckpointFolder(run: path)
            let trainer = try Trainer(TrainingCase.all[0], .f32)
            try trainer.train(1...1)
            try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 1), backend: trainer.backend)
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 1 << 15, rlim_max: 1 << 15)
            setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
            do throws {
                try checkpoints.save(trainer.model, trainer.optimizer, trainer.state(step: 2), backend: trainer.backend)
                exit(1)
            } catch FileError.noSpace {
                exit(checkpoints.steps() == [1] && checkpoints.newestGood().step == 1 ? 0 : 2)
            } catch {
                exit(3)
            }
        }
    }
}
