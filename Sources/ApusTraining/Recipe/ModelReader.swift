import ApusExperts
import ApusKernels
import ApusModels

/// Reads `model`: a preset with some keys changed, or every size written out.
struct ModelReader {
    let section: Section
    let data: DataConfiguration
    /// Those of an encoder of images, with the number of its classes.
    let patches: (configuration: PatchConfiguration, classes: Int)?

    static let widest = 1 << 16
    static let mostLayers = 1024
    private static let longest = 1 << 20

    /// The model; `nil` when its sizes are too wrong to build one, which the log then tells.
    func model() -> ModelConfiguration? {
        let base = preset()
        if base == nil, section.value("preset") != nil { return nil }
        let layers = section.integer("layers", 1...Self.mostLayers, default: base?.layers, example: 4)
        let width = section.integer("width", 1...Self.widest, default: base?.width, example: 256)
        let heads = section.integer("heads", 1...4096, default: base?.heads, example: 4)
        let latentReader = LatentReader(section: section, base: base)
        let latent = latentReader.latent()
        let keyValueHeads = section.integer(
            "key_value_heads", 1...4096, default: latent == nil ? base?.keyValueHeads ?? heads : heads, example: heads)
        let position = self.position(base?.position)
        let headWidth = self.headWidth(base: base, width: width, heads: heads, latent: latent, position: position)
        checkHeads(heads, keyValueHeads)
        let maximumPositions = section.integer(
            "maximum_positions", 1...Self.longest,
            default: patches == nil ? base?.maximumPositions ?? data.sequenceLength : data.sequenceLength, example: 2048
        )
        section.require(
            data.sequenceLength <= maximumPositions, "maximum_positions", with: ["data.sequence_length"],
            "is \(maximumPositions), fewer than data.sequence_length \(data.sequenceLength)",
            "use at least \(data.sequenceLength), or lower data.sequence_length")
        section.require(
            patches == nil || maximumPositions == data.sequenceLength, "maximum_positions",
            with: [section.full("patches")],
            "is \(maximumPositions), but model.patches make \(data.sequenceLength) tokens of an image", "leave it out")
        let activation = section.choice("activation", default: base?.activation ?? .swiglu)
        let feedForward = FeedForwardReader(model: section, base: base, layers: layers, activation: activation).layers()
        let model = ModelConfiguration(
            vocabulary: vocabulary(base), width: width, heads: heads, keyValueHeads: keyValueHeads,
            headWidth: headWidth,
            maximumPositions: maximumPositions, norm: section.choice("norm", default: base?.norm ?? .rms),
            normEpsilon: section.real("norm_epsilon", .positive, default: base?.normEpsilon ?? 1e-5, example: 1e-5),
            position: position,
            queryKeyNorm: section.choice("query_key_norm", default: base?.queryKeyNorm ?? .none),
            attentionBias: section.flag("attention_bias", default: base?.attentionBias ?? false),
            attentionClip: section.optionalReal("attention_clip", .positive, default: base?.attentionClip, example: 8),
            slidingWindow: section.optionalInteger(
                "sliding_window", 1...Self.longest, default: base?.slidingWindow, example: 4096),
            activation: activation, feedForward: feedForward,
            tiedEmbeddings: section.flag("tied_embeddings", default: base?.tiedEmbeddings ?? false),
            initialDeviation: section.real(
                "initial_deviation", .positive, default: base?.initialDeviation ?? 0.02, example: 0.02),
            initialScale: section.optionalReal(
                "initial_scale", .positiveFloat, default: base?.initialScale, example: 0.1), latent: latent,
            yarn: latentReader.yarn(section.section("position"), latent: latent), patches: patches?.configuration,
            convolution: ConvolutionReader(section: section, base: base, count: layers).convolution())
        latentReader.check(model)
        PatchReader(section: section).check(model)
        return model
    }

    private func preset() -> ModelConfiguration? {
        guard section.value("preset") != nil else { return nil }
        let name = section.text("preset", example: "the name of a model")
        guard !name.isEmpty else { return nil }
        do throws(ModelConfigurationError) {
            return try ModelConfiguration.preset(named: name)
        } catch .impossible(let key, let found, let reason) {
            section.flaw("preset", "is \"\(display(name))\", whose \(key) is \(found)", reason)
        } catch {
            let names = ModelConfiguration.presetNames
            let near = nearestName(to: name, among: names).map { "did you mean \($0)?" }
            let some = names.prefix(12).joined(separator: ", ")
            section.flaw("preset", "is \"\(display(name))\"", near ?? "the presets are \(some), ...")
        }
        return nil
    }

    private func vocabulary(_ base: ModelConfiguration?) -> Int {
        if let patches {
            let vocabulary = section.integer(
                "vocabulary", 1...1 << 24, default: patches.classes, example: patches.classes)
            section.require(
                vocabulary == patches.classes, "vocabulary", with: [section.full("patches.classes")],
                "is \(vocabulary), but model.patches.classes is \(patches.classes)", "leave it out")
            return patches.classes
        }
        let needed = data.vocabulary.size
        let vocabulary = section.integer(
            "vocabulary", 1...1 << 24, default: max(base?.vocabulary ?? needed, needed), example: needed)
        section.require(
            vocabulary >= needed, "vocabulary", with: ["data.vocabulary"],
            "is \(vocabulary), but data.vocabulary \(data.vocabulary.rawValue) has \(needed) tokens",
            "use at least \(needed)")
        return vocabulary
    }

    private func position(_ base: ModelConfiguration.Position?) -> ModelConfiguration.Position {
        let position = section.section("position")
        let theta: Double? = if case .rotary(let theta) = base { theta } else { nil }
        switch position.choice("kind", default: base == .learned || patches != nil ? PositionKind.learned : .rotary) {
        case .learned:
            if position.value("theta") != nil {
                position.flaw("theta", "has no meaning with kind learned", "remove it, or use kind rotary")
            }
            if position.value("yarn") != nil {
                position.flaw("yarn", "has no meaning with kind learned", "remove it, or use kind rotary")
            }
            return .learned
        case .rotary:
            return .rotary(theta: position.real("theta", .positive, default: theta ?? 10_000, example: 10_000))
        }
    }

    private func headWidth(
        base: ModelConfiguration?, width: Int, heads: Int, latent: LatentConfiguration?,
        position: ModelConfiguration.Position
    ) -> Int {
        if let latent {
            return section.integer(
                "head_width", 1...ModelConfiguration.largestHeadWidth, default: latent.keyWidth,
                example: latent.keyWidth)
        }
        let isInherited = section.value("width") == nil && section.value("heads") == nil
        let isGiven = section.value("head_width") != nil
        let inherited = isInherited ? base?.headWidth : nil
        if !isGiven, inherited == nil {
            section.require(
                width % heads == 0, "width", with: [section.full("heads")],
                "is \(width), no multiple of heads \(heads)",
                "the nearest that works is \(nearestMultiple(of: heads, to: width)); or set head_width")
        }
        let headWidth = section.integer(
            "head_width", 1...ModelConfiguration.largestHeadWidth, default: inherited ?? max(1, width / heads),
            example: 64)
        if case .rotary = position {
            section.require(
                headWidth % 2 == 0, isGiven || inherited != nil ? "head_width" : "width",
                with: ["heads", "position.kind"].map(section.full),
                isGiven || inherited != nil
                    ? "is \(headWidth), an odd number" : "makes heads \(headWidth) wide, an odd number",
                "rotary positions turn pairs: the nearest that works is a head_width of \(headWidth + 1)")
        }
        return headWidth
    }

    private func checkHeads(_ heads: Int, _ keyValueHeads: Int) {
        section.require(
            heads % keyValueHeads == 0, "key_value_heads", with: [section.full("heads")],
            "is \(keyValueHeads), which does not divide heads \(heads)",
            "the nearest that works is \(nearestDivisor(of: heads, to: keyValueHeads))")
    }
}

/// The names of ``ModelConfiguration/Position``.
enum PositionKind: String, CaseIterable {
    case rotary
    case learned
}

/// The divisor of `number` nearest to `value`, the smaller of two.
func nearestDivisor(of number: Int, to value: Int) -> Int {
    (1...max(number, 1)).filter { number % $0 == 0 }.min { (abs($0 - value), $0) < (abs($1 - value), $1) } ?? 1
}
