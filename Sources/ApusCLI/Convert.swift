import ApusInference
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ArgumentParser

/// `apus convert`: between Apus' own checkpoints and Hugging Face folders.
struct Convert: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Convert between Apus checkpoints and Hugging Face folders.",
        discussion: """
            No tensor is lost: one that is missing, left over or of another shape is named and nothing is written. (The \
            layer with which DeepSeek-V3 predicts further tokens is left out, which is said.) The result is read back, \
            and its logits must be those of the source to the bit.

            Example:
              apus convert import ./OLMoE-1B-7B --out models/olmoe
              apus convert export models/olmoe --family olmoe --out ./OLMoE-copy
            """,
        subcommands: [ConvertImport.self, ConvertExport.self])
}

/// `apus convert import`.
struct ConvertImport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Turn a Hugging Face folder into an Apus checkpoint.",
        discussion: """
            Tokenizer files and generation_config.json come along.

            Example:
              apus convert import ./Mixtral-8x7B-v0.1 --out models/mixtral
            """)

    @Argument(help: "A Hugging Face folder of Mixtral, OLMoE, Qwen3-MoE, DeepSeek-V2 or DeepSeek-V3.")
    var folder: String

    @Option(help: "The new folder.")
    var out: String

    @Option(help: "Type of the new weights: f32 or bf16 (default: as they are stored).")
    var precision: ModelPrecision?

    @OptionGroup var compute: ComputeOptions

    func run() throws {
        let source = try ModelFolder(folder)
        guard source.configuration.family != nil else {
            throw CommandError(
                "'\(folder)' is an Apus checkpoint already; 'apus convert export' writes a Hugging Face folder")
        }
        if let first = source.passedOver.first {
            writeError(
                "note: \(source.passedOver.count) tensors of the layer that predicts further tokens are left out, from "
                    + "'\(first)' on: no logit of the model itself depends on them")
        }
        try Conversion(source: source, family: nil, precision: precision, out: out).run(try compute.backend())
    }
}

/// `apus convert export`.
struct ConvertExport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Turn an Apus checkpoint into a Hugging Face folder.",
        discussion: """
            Tokenizer files and generation_config.json that lie beside the weights come along.

            Example:
              apus convert export runs/mine --family mixtral --out ./mine-hf
            """)

    @Argument(help: "A checkpoint or a run.")
    var checkpoint: String

    @Option(help: "The new folder.")
    var out: String

    @Option(help: "mixtral, olmoe, qwen3_moe, deepseek_v2 or deepseek_v3.")
    var family: String

    @Option(help: "Type of the new weights: f32 or bf16 (default: as they are stored).")
    var precision: ModelPrecision?

    @OptionGroup var compute: ComputeOptions

    func validate() throws {
        if HubFamily(rawValue: family) == nil {
            throw ValidationError(
                "--family is '\(family)'; it must be one of \(HubFamily.allCases.map(\.rawValue).joined(separator: ", "))"
            )
        }
    }

    func run() throws {
        let source = try Checkpoint(checkpoint).model
        guard let family = HubFamily(rawValue: family) else { return }
        let left = family.leftBehind(source.configuration.configuration)
        if !left.isEmpty {
            writeError(
                "note: settings of training that \(family.title) files do not carry: \(left.joined(separator: ", "))")
        }
        try Conversion(source: source, family: family, precision: precision, out: out).run(try compute.backend())
    }
}

/// One conversion with its proof.
private struct Conversion {
    let source: ModelFolder
    let family: HubFamily?
    let precision: ModelPrecision?
    let out: String

    func run(_ backend: any Backend) throws {
        let conversion = try ModelConversion(source, to: family, type: precision?.value.modelType)
        let ids = sampleIds()
        var largest = 0.0
        try conversion.write(to: out, backend: backend) { staging in
            // One model at a time, for either may fill the memory.
            let before = try logits(source, conversion, ids, backend)
            let after = try logits(try ModelFolder(staging), conversion, ids, backend)
            let isSame = zip(before, after).allSatisfy { $0.bitPattern == $1.bitPattern } && before.count == after.count
            largest = zip(before, after).reduce(0) { max($0, abs(Double($1.0) - Double($1.1))) }
            guard isSame else {
                throw CommandError(
                    "the logits of the new folder differ from the source's by up to \(scientific(largest)); nothing was "
                        + "written to '\(out)'")
            }
        }
        print(
            """
            \(out): \(family?.title ?? "Apus") checkpoint, \(conversion.type), \
            \(grouped(source.configuration.configuration.parameterCounts().total)) parameters
            logits of \(ids.reduce(0) { $0 + $1.count }) random tokens: largest difference \(largest), equal to the bit
            """)
    }

    private func logits(
        _ folder: ModelFolder, _ conversion: ModelConversion, _ ids: [[Int32]], _ backend: any Backend
    ) throws -> [Float] {
        let model = try folder.load(backend: backend, precision: conversion.precision, positions: ids[0].count)
        var values: [Float] = []
        try Evaluator(model, backend: backend).logits(of: ids) { _, logits in values += try backend.floats(logits) }
        return values
    }

    /// Two sequences of random ids, the second shorter.
    private func sampleIds() -> [[Int32]] {
        let configuration = source.configuration.configuration
        let stream = RandomStream(seed: 20, purpose: .dataOrder)
        let length = min(24, configuration.maximumPositions)
        let ids = (0..<2 * length).map {
            Int32(stream.word(at: UInt64($0)) % UInt32(clamping: configuration.vocabulary))
        }
        return [Array(ids[..<length]), Array(ids[length..<length + (length + 1) / 2])]
    }
}
