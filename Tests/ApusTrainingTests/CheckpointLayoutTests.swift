import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTestSupport
import Testing

@testable import ApusTraining

/// What one layout saves, every other one loads, to the bit.
@Suite struct CheckpointLayoutTests {
    static let model = TrainingCase.decoder(
        TrainingCase.moe(losses: RouterLosses(balance: 0.02, z: 0.01), sharedWidth: 12), queryKeyNorm: .head)
    static let biased = TrainingCase.decoder(
        TrainingCase.moe(
            router: RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.05),
            losses: RouterLosses(balance: 0.02)), norm: .layer, position: .learned, isTied: true)

    static let alone = LayoutCase(model: model, data: 1, zero: .none)
    static let layouts: [LayoutCase] = [
        LayoutCase(model: model, data: 1),
        LayoutCase(model: model, data: 2, zero: .none),
        LayoutCase(model: model, data: 3, batch: 6, microBatch: 6),
        LayoutCase(model: model, data: 4, zero: .gradients, microBatch: 1),
        LayoutCase(model: model, tensor: 2, data: 1, zero: .none),
        LayoutCase(model: model, tensor: 2, data: 2),
        LayoutCase(model: model, expert: .uniform(2), data: 2, zero: .none),
        LayoutCase(model: model, expert: .uniform(4), data: 4),
        LayoutCase(model: model, expert: .uniform(2), data: 4, order: .dataBeforeExpert, zero: .gradients),
        LayoutCase(model: model, expert: .perLayer([2, 1, 4]), data: 4),
        LayoutCase(model: model, tensor: 2, expert: .uniform(2), data: 4),
        LayoutCase(model: model, tensor: 2, expert: .uniform(4), data: 4, expertTensor: false),
        LayoutCase(model: model, tensor: 2, expert: .uniform(2), data: 2, expertTensor: false, sequenceParallel: true),
        LayoutCase(model: model, expert: .uniform(8), data: 8),
        LayoutCase(model: model, tensor: 2, expert: .uniform(8), data: 4, expertTensor: false, zero: .none),
    ]

    /// Each layout loads what one rank saved and what the layout before it saved, and saves for the next.
    @Test(arguments: [Precision.f32, .bf16])
    func `a checkpoint goes from layout to layout and comes back as it was`(_ precision: Precision) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 100)
        var alone = Self.alone
        alone.precision = precision
        let expected = Elements(
            try alone.run { rank in
                _ = try rank.train(1...2)
                try rank.saver(checkpoints).save(rank.state(1))
                return try rank.elements()
            })
        for (place, layout) in Self.layouts.enumerated() {
            var layout = layout
            layout.precision = precision
            let step = place + 1
            let found = try layout.resume(checkpoints, step: step) { rank in
                let saver = try rank.saver(checkpoints)
                // Either way of saving in turn.
                if place.isMultiple(of: 2) {
                    try saver.save(rank.state(step + 1))
                } else {
                    let save = try saver.begin(rank.state(step + 1))
                    #expect(save.copiedBytes == saver.copyBytes)
                    try save.finish()
                }
                return try rank.elements()
            }
            let differences = Elements(found).differences(from: expected)
            #expect(differences.isEmpty, "\(layout): \(differences.prefix(5))")
            #expect(checkpoints.newestGood().step == step + 1)
            let again = Elements(try alone.resume(checkpoints, step: step + 1) { try $0.elements() })
            #expect(again.differences(from: expected).isEmpty, "saved by \(layout)")
        }
    }

    @Test func `tied embeddings, biases, learned positions and a selection bias travel too`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let two = LayoutCase(model: Self.biased, tensor: 2, expert: .uniform(2), data: 2)
        let saved = Elements(
            try two.run { rank in
                _ = try rank.train(1...2)
                try rank.saver(checkpoints).save(rank.state(2))
                return try rank.elements()
            })
        #expect(saved.contradictions.isEmpty, "\(saved.contradictions)")
        for layout in [LayoutCase(model: Self.biased, data: 1), LayoutCase(model: Self.biased, data: 4)] {
            let found = Elements(try layout.resume(checkpoints, step: 2) { try $0.elements() })
            #expect(found.differences(from: saved).isEmpty, "\(layout)")
        }
    }

    @Test(arguments: [
        (layouts[6], layouts[5]), (layouts[10], layouts[0]), (layouts[3], layouts[11]), (layouts[0], layouts[7]),
    ])
    func `training goes on: to the bit where the layout is the same, and on another one all but`(
        _ first: LayoutCase, _ second: LayoutCase
    ) throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let expected = try first.run { rank in
            _ = try rank.train(1...3)
            try rank.saver(checkpoints).save(rank.state(3))
            return try rank.train(4...24)
        }[0]
        let same = try first.resume(checkpoints, step: 3) { try $0.train(4...8) }[0]
        #expect(same.map(\.bitPattern) == expected.prefix(5).map(\.bitPattern))
        let other = try second.resume(checkpoints, step: 3) { try $0.train(4...24) }[0]
        #expect(abs(other[0] - expected[0]) <= 1e-5 * abs(expected[0]), "\(other[0]) and \(expected[0])")
        for (found, wanted) in zip(other, expected) {
            #expect(abs(found - wanted) <= 1e-3 * abs(wanted), "\(found) and \(wanted)")
        }
    }

    @Test func `several ranks write weights that any command reads, and each a like share`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path)
        let layout = LayoutCase(model: Self.model, tensor: 2, expert: .uniform(2), data: 2)
        let bytes = try layout.run { rank in
            let saver = try rank.saver(checkpoints)
            try saver.save(rank.state(1))
            return saver.copyBytes
        }
        let folder = checkpoints.folder(step: 1)
        let names = folderNames(folder)
        #expect(names.filter { $0.hasPrefix("model-") && $0.hasSuffix("-of-00004.safetensors") }.count == 4)
        #expect(names.filter { $0.hasPrefix("optimizer-") && $0.hasSuffix("-of-00004.safetensors") }.count == 4)
        #expect(names.contains("model.safetensors.index.json") && names.contains(StatePieceIndex.fileName))
        #expect(!names.contains("optimizer.safetensors.index.json"))
        let (least, most) = (bytes.min() ?? 0, bytes.max() ?? 0)
        #expect(least > 0 && Double(most) < 1.2 * Double(least), "\(bytes)")
        let model = try ModelFolder(folder).load(backend: CPUBackend(threadCount: 1))
        #expect(model.store.parameters.count == Self.model.parameterInventory().count)
    }

    @Test func `files of a bounded size are numbered over all ranks`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 4)
        let layout = LayoutCase(model: Self.model, data: 2)
        let saved = Elements(
            try layout.run { rank in
                _ = try rank.train(1...1)
                let step = rank.trainStep
                try CheckpointSaver(
                    checkpoints, step.model, step.optimizer, over: rank.world, maximumShardSize: 1 << 14,
                    backend: rank.backend
                ).save(rank.state(1))
                return try rank.elements()
            })
        #expect(folderNames(checkpoints.folder(step: 1)).count { $0.hasPrefix("model-") } > 4)
        let alone = try Self.alone.resume(checkpoints, step: 1) { rank in
            let step = rank.trainStep
            try CheckpointSaver(
                checkpoints, step.model, step.optimizer, maximumShardSize: 1 << 14, backend: rank.backend
            ).save(rank.state(2))
            return try rank.elements()
        }
        #expect(Elements(alone).differences(from: saved).isEmpty)
        #expect(folderNames(checkpoints.folder(step: 2)).contains("optimizer.safetensors.index.json"))
        let again = Elements(try layout.resume(checkpoints, step: 2) { try $0.elements() })
        #expect(again.differences(from: saved).isEmpty)
    }

    @Test func `one rank writes the files that it always has, in the background too`() throws {
        let scratch = try ScratchFolder()
        let checkpoints = CheckpointFolder(run: scratch.path, keep: 3)
        _ = try Self.alone.run { rank in
            _ = try rank.train(1...1)
            try checkpoints.save(
                rank.trainStep.model, rank.trainStep.optimizer, rank.state(1), backend: rank.backend)
            let save = try rank.saver(checkpoints).begin(rank.state(2))
            try save.finish()
            try rank.saver(checkpoints).save(rank.state(3))
        }
        let wanted = ["checksums.json", "config.json", "model.safetensors", "optimizer.safetensors", "state.txt"]
        for step in 1...3 { #expect(folderNames(checkpoints.folder(step: step)) == wanted) }
        for file in ["config.json", "model.safetensors", "optimizer.safetensors"] {
            let first = try fileBytes("\(checkpoints.folder(step: 1))/\(file)")
            for step in 2...3 { #expect(try fileBytes("\(checkpoints.folder(step: step))/\(file)") == first) }
        }
    }
}
