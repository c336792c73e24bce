// Shape letters: D model width, W taps.

/// Which layers mix tokens by a gated short convolution in place of attention, and over how many tokens: a hybrid
/// (MAD, Poli et al. 2024, section 4).
public struct ConvolutionConfiguration: Sendable, Equatable {
    /// The layers, ascending.
    public var layers: [Int]
    /// W, tokens that a token reads, itself included.
    public var width: Int

    /// W where nothing else is said.
    public static let standardWidth = 4
    /// What W may be: a width of 1 mixes nothing, and far more are no short convolution.
    public static let widths = 2...64
    /// What a token is projected to, in the order of the parameters: the gate after the taps, that before them, and what
    /// they mix.
    static let projections = ["outer", "inner", "in"]

    /// Convolutions of `width` taps in `layers`.
    public init(layers: [Int], width: Int = standardWidth) {
        self.layers = layers
        self.width = width
    }

    /// Elements of one layer's parameters, in floating point because those of impossible sizes overflow.
    func elements(width model: Int) -> Double { Double(model) * (4 * Double(model) + Double(width)) }
}

extension ModelConfiguration {
    /// The convolution of layer `index`, or `nil` when it has attention.
    public func convolution(layer index: Int) -> ConvolutionConfiguration? {
        convolution.flatMap { $0.layers.contains(index) ? $0 : nil }
    }

    /// Refuses convolutions that cannot be.
    func checkConvolution() throws(ModelConfigurationError) {
        guard let convolution else { return }
        let widths = ConvolutionConfiguration.widths
        try require(
            widths.contains(convolution.width), "convolution.width", convolution.width,
            "it must be from \(widths.lowerBound) to \(widths.upperBound)")
        try require(
            !convolution.layers.isEmpty, "convolution.layers", "[]", "name a layer, or leave 'convolution' out")
        try require(
            zip(convolution.layers, convolution.layers.dropFirst()).allSatisfy { $0 < $1 }
                && convolution.layers.allSatisfy { (0..<layers).contains($0) },
            "convolution.layers", "\(convolution.layers.prefix(8))",
            "they must ascend, each from 0 to \(layers - 1)")
    }
}

extension ConvolutionConfiguration {
    var jsonValue: JSONValue {
        .object(["layers": .array(layers.map { .integer($0) }), "width": .integer(width)])
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: ["layers", "width"])
        var layers: [Int] = []
        for element in try fields.array("layers") {
            guard case .integer(let layer) = element else {
                throw fields.wrong("layers", element, "a list of whole numbers")
            }
            layers.append(layer)
        }
        self.init(layers: layers, width: try fields.integer("width"))
    }
}
