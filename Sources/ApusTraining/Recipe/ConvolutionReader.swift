import ApusModels

/// Reads `model.convolution`: which layers convolve in place of attention.
struct ConvolutionReader {
    /// `model`.
    let section: Section
    let base: ModelConfiguration?
    /// Layers of the model.
    let count: Int

    /// The convolutions; `nil` where all layers have attention.
    func convolution() -> ConvolutionConfiguration? {
        guard section.value("convolution") != nil else {
            return section.isNull("convolution") ? nil : inherited()
        }
        let group = section.section("convolution")
        let widths = ConvolutionConfiguration.widths
        let width = group.integer(
            "width", widths, default: base?.convolution?.width ?? ConvolutionConfiguration.standardWidth, example: 4)
        guard
            let (layers, _) = group.integers(
                "layers", 0...ModelReader.mostLayers - 1, example: "[0, 2]")
        else {
            if var inherited = inherited() {
                inherited.width = width
                return inherited
            }
            group.require(
                false, "layers", with: [section.full("convolution")], "is missing",
                "a list of layers is needed, for example [0, 2]")
            return nil
        }
        let total = [section.full("layers")]
        group.require(
            !layers.isEmpty, "layers", "is an empty list", "name a layer, or take model.convolution away")
        group.require(Set(layers).count == layers.count, "layers", "names a layer twice", "name each layer once")
        group.require(
            layers.allSatisfy { $0 < count }, "layers", with: total,
            "names layer \(layers.max() ?? 0), but the model has \(count) layers, counted from 0",
            "use 0 to \(count - 1)")
        let places = Set(layers.filter { $0 < count }).sorted()
        return places.isEmpty ? nil : ConvolutionConfiguration(layers: places, width: width)
    }

    /// Those of the preset, repeated or cut with its layers.
    private func inherited() -> ConvolutionConfiguration? {
        guard let base, let convolution = base.convolution else { return nil }
        let places = (0..<count).filter { convolution.layers.contains($0 % base.layers) }
        return places.isEmpty ? nil : ConvolutionConfiguration(layers: places, width: convolution.width)
    }
}

extension YAMLWriter {
    /// Which layers convolve.
    mutating func convolution(_ convolution: ConvolutionConfiguration) {
        group("convolution") { writer in
            writer.key("layers", "\(convolution.layers)")
            writer.key("width", "\(convolution.width)")
        }
    }
}
