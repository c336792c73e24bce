import ApusKernels
import ApusModels

/// Reads `model.latent`, attention with compressed keys and values, and `model.position.yarn`, which comes with it.
struct LatentReader {
    /// `model`.
    let section: Section
    let base: ModelConfiguration?

    /// The compression; `nil` for attention with projections of its own.
    func latent() -> LatentConfiguration? {
        guard section.value("latent") != nil || base?.latent != nil && !section.isNull("latent") else { return nil }
        let group = section.section("latent")
        let base = base?.latent
        let most = ModelConfiguration.largestHeadWidth
        let plain = group.integer("plain_width", 1...most, default: base?.plainWidth, example: 32)
        let rotary = group.integer("rotary_width", 1...most, default: base?.rotaryWidth, example: 16)
        group.require(
            rotary % 2 == 0, "rotary_width", "is \(rotary), an odd number",
            "rotary positions turn pairs: the nearest that works is \(rotary + 1)")
        group.require(
            plain + rotary <= most, "plain_width", with: [group.full("rotary_width")],
            "and rotary_width make heads \(plain + rotary) wide, and attention takes \(most)",
            "use a plain_width of at most \(most - rotary)")
        return LatentConfiguration(
            queryRank: group.optionalInteger(
                "query_rank", 1...ModelReader.widest, default: base?.queryRank, example: 96),
            keyValueRank: group.integer(
                "key_value_rank", 1...ModelReader.widest, default: base?.keyValueRank, example: 64),
            plainWidth: plain, rotaryWidth: rotary,
            valueWidth: group.integer("value_width", 1...most, default: base?.valueWidth ?? plain, example: 32),
            pairing: group.choice("pairing", default: base?.pairing ?? .neighbours))
    }

    /// Tells of what cannot stand beside compressed keys and values.
    func check(_ model: ModelConfiguration) {
        guard let latent = model.latent else { return }
        let remedies = [
            (
                "key_value_heads", model.keyValueHeads == model.heads,
                "is \(model.keyValueHeads), but latent attention makes a key and a value for each head",
                "use \(model.heads), or leave it out"
            ),
            (
                "head_width", model.headWidth == latent.keyWidth,
                "is \(model.headWidth), but latent.plain_width and latent.rotary_width make \(latent.keyWidth)",
                "use \(latent.keyWidth), or leave it out"
            ),
            (
                "position", model.position != .learned, "is learned, but latent attention turns keys",
                "use kind: rotary"
            ),
            (
                "query_key_norm", model.queryKeyNorm == .none,
                "is \(model.queryKeyNorm.rawValue), but latent attention normalises what it compresses", "use none"
            ),
            ("attention_bias", !model.attentionBias, "is true, but latent attention has no biases", "use false"),
            ("attention_clip", model.attentionClip == nil, "is set, but latent attention clamps nothing", "use null"),
        ]
        for (key, holds, reason, remedy) in remedies {
            section.require(holds, key, with: ["heads", "latent"].map(section.full), reason, remedy)
        }
    }

    /// Positions stretched to a longer context; `nil` for plain ones.
    func yarn(_ position: Section, latent: LatentConfiguration?) -> YarnConfiguration? {
        guard position.value("yarn") != nil || base?.yarn != nil && !position.isNull("yarn") else { return nil }
        position.require(
            latent != nil, "yarn", with: [section.full("latent")],
            "is for latent attention, whose scores it scales too", "set model.latent, or leave yarn out")
        guard latent != nil else { return nil }
        let group = position.section("yarn")
        let base = base?.yarn
        let yarn = YarnConfiguration(
            factor: group.real("factor", .positive, default: base?.factor, example: 4),
            originalPositions: group.integer(
                "original_positions", 1...1 << 30, default: base?.originalPositions, example: 4096),
            betaFast: group.real("beta_fast", .positive, default: base?.betaFast ?? 32, example: 32),
            betaSlow: group.real("beta_slow", .positive, default: base?.betaSlow ?? 1, example: 1),
            mscale: group.real("mscale", .nonNegative, default: base?.mscale ?? 0, example: 1),
            mscaleAll: group.real("mscale_all", .nonNegative, default: base?.mscaleAll ?? 0, example: 1))
        group.require(
            yarn.factor >= 1, "factor", "is \(yarn.factor), which makes the context shorter", "use at least 1")
        group.require(
            yarn.betaFast >= yarn.betaSlow, "beta_fast", with: [group.full("beta_slow")],
            "is \(yarn.betaFast), below beta_slow \(yarn.betaSlow)", "use at least \(yarn.betaSlow)")
        return yarn
    }
}

extension YAMLWriter {
    /// What attention with compressed keys and values has.
    mutating func latent(_ latent: LatentConfiguration) {
        group("latent") { writer in
            if let rank = latent.queryRank { writer.key("query_rank", "\(rank)") }
            writer.key("key_value_rank", "\(latent.keyValueRank)")
            writer.key("plain_width", "\(latent.plainWidth)")
            writer.key("rotary_width", "\(latent.rotaryWidth)")
            writer.key("value_width", "\(latent.valueWidth)")
            writer.key("pairing", latent.pairing.rawValue)
        }
    }

    /// A stretch of rotary positions.
    mutating func yarn(_ yarn: YarnConfiguration) {
        group("yarn") { writer in
            writer.key("factor", "\(yarn.factor)")
            writer.key("original_positions", "\(yarn.originalPositions)")
            writer.key("beta_fast", "\(yarn.betaFast)")
            writer.key("beta_slow", "\(yarn.betaSlow)")
            writer.key("mscale", "\(yarn.mscale)")
            writer.key("mscale_all", "\(yarn.mscaleAll)")
        }
    }
}
