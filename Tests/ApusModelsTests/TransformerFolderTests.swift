import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusModels

/// Models in Apus' own form, written and loaded again.
@Suite struct TransformerFolderTests {
    @Test(arguments: TransformerCase.all, [Precision.f32, .bf16])
    func `a model comes back from its folder bit by bit, in shards too`(
        _ sample: TransformerCase, _ precision: Precision
    ) throws {
        let fixture = try TransformerFixture(sample.configuration, precision)
        for size in [5_000_000_000, 3000] {
            let scratch = try ScratchFolder()
            let digests = try fixture.model.write(
                toFolder: scratch.path, as: nil, backend: fixture.backend, maximumShardSize: size)
            #expect(Set(digests.keys) == Set(try scratch.names))
            #expect(digests.keys.contains("model.safetensors") == (size > 3000))
            let folder = try ModelFolder(scratch.path)
            #expect(folder.configuration.configuration == sample.configuration)
            #expect(folder.configuration.family == nil)
            #expect(folder.storedType == precision.modelType)
            let loaded = try folder.load(backend: fixture.backend)
            #expect(loaded.store.precision == precision)
            for parameter in fixture.model.store.parameters {
                let found = try #require(loaded.store[parameter.name]).acquire(on: .cpu)
                expectSameBits(found, try parameter.acquire(on: .cpu), parameter.name)
            }
        }
    }

    @Test func `a range of stages takes its part of a folder`() throws {
        let fixture = try TransformerFixture(TransformerCase.all[0].configuration)
        let scratch = try ScratchFolder()
        try fixture.model.write(toFolder: scratch.path, as: nil, backend: fixture.backend)
        let part = try Transformer(
            fixture.model.configuration, backend: fixture.backend, precision: .f32, isTrained: false,
            stages: Transformer.StageRange(hasEmbed: false, blocks: 1..<2, hasHead: true))
        try ModelFolder(scratch.path).loadWeights(into: part.store, backend: fixture.backend)
        #expect(part.store.parameters.count < fixture.model.store.parameters.count)
        for parameter in part.store.parameters {
            expectSameBits(try parameter.acquire(on: .cpu), try fixture.weights(parameter.name), parameter.name)
        }
    }

    @Test func `another precision rounds or widens, and routers stay in f32`() throws {
        let fixture = try TransformerFixture(TransformerCase.all[0].configuration, .f32)
        let scratch = try ScratchFolder()
        try fixture.model.write(toFolder: scratch.path, as: nil, backend: fixture.backend)
        let loaded = try ModelFolder(scratch.path).load(backend: fixture.backend, precision: .bf16)
        for parameter in loaded.store.parameters {
            let found = try parameter.acquire(on: .cpu)
            let stored = try fixture.weights(parameter.name)
            #expect(found.dtype == (parameter.role == .router ? .f32 : .bf16))
            #expect(
                found.floats()
                    == (parameter.role == .router
                        ? stored.floats() : stored.floats().map { Float(bitPattern: UInt32(bfloat16Bits($0)) << 16) }),
                "\(parameter.name)")
        }
    }

    @Test func `the folder of a run means its newest checkpoint`() throws {
        let fixture = try TransformerFixture(TransformerCase.all[0].configuration)
        let scratch = try ScratchFolder()
        #expect(throws: FileError.notFound(path: "\(scratch.path)/config.json")) {
            try RunFolder.model(at: scratch.path)
        }
        #expect(throws: FileError.notFound(path: "/nonexistent")) { try RunFolder.model(at: "/nonexistent/") }
        let checkpoints = "\(scratch.path)/checkpoints"
        for step in [2, 10, 9] {
            let folder = RunFolder.checkpointName(step: step, in: checkpoints)
            try RunFolder.create(folder)
            let digests = try fixture.model.write(toFolder: folder, as: nil, backend: fixture.backend)
            try CheckpointManifest(files: digests).write(toFolder: folder)
        }
        try RunFolder.create("\(checkpoints)/step-00000011.tmp-77")
        try RunFolder.create("\(checkpoints)/notes")
        #expect(RunFolder.checkpointSteps(in: checkpoints) == [2, 9, 10])
        #expect(try RunFolder.model(at: scratch.path + "/").folder == "\(checkpoints)/step-00000010")
        #expect(try RunFolder.model(at: "\(checkpoints)/step-00000009").folder == "\(checkpoints)/step-00000009")
        #expect(RunFolder.checkpointName(step: 123_456_789, in: "c") == "c/step-123456789")
        #expect(RunFolder.checkpointSteps(in: "/nonexistent").isEmpty)
    }
}
