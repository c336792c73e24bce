import ApusModels

/// Reads `model.patches`: what makes the model an encoder that classifies images.
struct PatchReader {
    /// `model`.
    let section: Section

    /// Patches of images and the number of their classes; `nil` for a decoder of text.
    func patches() -> (configuration: PatchConfiguration, classes: Int)? {
        guard section.value("patches") != nil else { return nil }
        let group = section.section("patches")
        let size = group.integer("size", 1...1 << 10, example: 2)
        let height = side("height", group, size)
        let width = side("width", group, size)
        let configuration = PatchConfiguration(
            height: height, width: width, channels: group.integer("channels", 1...1 << 10, default: 1, example: 3),
            size: size)
        group.require(
            configuration.tokens <= DataReader.longest, "size", with: [group.full("height"), group.full("width")],
            "is \(size), which makes \(configuration.tokens) tokens of an image",
            "use larger patches: at most \(DataReader.longest) tokens are possible")
        return (configuration, group.integer("classes", 1...1 << 16, example: 10))
    }

    private func side(_ key: String, _ group: Section, _ size: Int) -> Int {
        let side = group.integer(key, 1...1 << 14, example: 4 * size)
        group.require(
            side % size == 0, key, with: [group.full("size")], "is \(side), which patches of \(size) do not divide",
            "the nearest that works is \(nearestMultiple(of: size, to: side)); or use a size of "
                + "\(nearestDivisor(of: side, to: size))")
        return side
    }

    /// Tells of what an encoder of images does not have.
    func check(_ model: ModelConfiguration) {
        guard model.patches != nil else { return }
        let remedies = [
            (
                "position", model.position == .learned, "is rotary, but patches have learned positions",
                "use kind: learned"
            ),
            ("tied_embeddings", !model.tiedEmbeddings, "is true, but classes are no patches", "use false"),
            ("sliding_window", model.slidingWindow == nil, "is set, but a patch sees the whole image", "use null"),
            ("latent", model.latent == nil, "is set, but latent attention is causal", "remove it, or model.patches"),
            ("convolution", model.convolution == nil, "is set, but it is causal", "remove it, or model.patches"),
        ]
        for (key, holds, reason, remedy) in remedies { section.require(holds, key, reason, remedy) }
    }
}
