import ApusExperts
import ApusKernels
import ApusTensor
import ApusTestSupport
import Foundation
import Testing

@testable import ApusModels

/// Folders that transformers wrote: read as they are, every tensor placed.
@Suite struct GoldenFolderTests {
    static func text(_ path: String) throws -> String { try #require(textFile(goldenFolder(path))) }

    @Test(arguments: [
        ("mixtral", HubFamily.mixtral), ("mixtral_fused", .mixtral), ("olmoe", .olmoe), ("qwen3_moe", .qwen3MoE),
        ("deepseek_v2", .deepseekV2), ("deepseek_v3", .deepseekV3),
    ])
    func `every tensor has its place`(folder: String, family: HubFamily) throws {
        let stored = try CheckpointConfiguration(json: Self.text("\(folder)/config.json"), path: folder)
        #expect(stored.family == family)
        #expect(stored.dtype == "float32")
        let files = try ShardedSafetensors(folder: goldenFolder(folder))
        let tensors = files.shards.flatMap(\.entries).map { (name: $0.name, shape: $0.shape) }
        let map = HubTensorMap(family: family, configuration: stored.configuration)
        let placements = try map.placements(of: tensors)
        #expect(placements.count == tensors.count)
        let inventory = stored.configuration.parameterInventory()
        let slices = placements.flatMap(\.slices)
        #expect(Set(slices.map(\.name)) == Set(inventory.map(\.name)) && slices.count == inventory.count)
        #expect(tensors.reduce(0) { $0 + $1.shape.reduce(1, *) } == stored.configuration.parameterCounts().total)
        if !folder.hasSuffix("fused") { #expect(Set(map.written.map(\.hubName)) == Set(tensors.map(\.name))) }

        let written = try family.json(stored.configuration, dtype: .f32, tokens: stored.tokens)
        #expect(try CheckpointConfiguration(json: written) == stored)
    }

    @Test(arguments: ["mixtral", "olmoe", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
    func `both spellings say the same`(folder: String) throws {
        #expect(
            try CheckpointConfiguration(json: Self.text("\(folder)/config.v4.json"))
                == CheckpointConfiguration(json: Self.text("\(folder)/config.json")))
    }

    @Test func `OLMoE's clip is read`() throws {
        let clipped = try CheckpointConfiguration(json: Self.text("olmoe/config.clip.json")).configuration
        var plain = try CheckpointConfiguration(json: Self.text("olmoe/config.json")).configuration
        #expect(clipped.attentionClip == 1.25)
        plain.attentionClip = 1.25
        #expect(clipped == plain)
    }

    /// The fused file and the plain one are of one model: each slice holds the plain tensor's bytes.
    @Test func `slices of fused experts are the experts`() throws {
        let configuration = try CheckpointConfiguration(json: Self.text("mixtral/config.json")).configuration
        let map = HubTensorMap(family: .mixtral, configuration: configuration)
        let plain = try ShardedSafetensors(folder: goldenFolder("mixtral"))
        let fused = try ShardedSafetensors(folder: goldenFolder("mixtral_fused"))
        let tensors = fused.shards.flatMap(\.entries).map { (name: $0.name, shape: $0.shape) }
        var compared = 0
        for placement in try map.placements(of: tensors) where placement.slices.count > 1 {
            let whole = try fused.bytes(placement.hubName).withUnsafeBytes { Array($0) }
            for slice in placement.slices {
                let expected = try plain.bytes(map.hubName(slice.name)).withUnsafeBytes { Array($0) }
                #expect(Array(whole[slice.elements.lowerBound * 4..<slice.elements.upperBound * 4]) == expected)
                compared += 1
            }
        }
        #expect(compared == 2 * 4 * 3)
    }
}
