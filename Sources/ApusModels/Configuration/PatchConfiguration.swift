// Shape letters: P pixel values of a patch, S tokens of an image.

/// How an image becomes a sequence: a class token, then its square patches row by row.
///
/// A model with patches is an encoder that classifies: every token sees all of its image, and the head reads the class token.
public struct PatchConfiguration: Sendable, Equatable {
    /// Rows of an image, in pixels.
    public var height: Int
    /// Columns of an image, in pixels.
    public var width: Int
    /// Values of a pixel: 1 for grey, 3 for red, green and blue.
    public var channels: Int
    /// Rows and columns of a patch, in pixels.
    public var size: Int

    /// Patches of `size` x `size` pixels.
    public init(height: Int, width: Int, channels: Int = 1, size: Int) {
        self.height = height
        self.width = width
        self.channels = channels
        self.size = size
    }

    /// P.
    public var values: Int { size * size * channels }
    /// S: the class token and the patches.
    public var tokens: Int { 1 + (height / max(size, 1)) * (width / max(size, 1)) }
}

extension ModelConfiguration {
    /// Refuses patches that do not make up an image, and settings that an encoder of images does not have.
    func checkPatches() throws(ModelConfigurationError) {
        guard let patches else { return }
        let sizes = [
            ("height", patches.height, 1 << 14), ("width", patches.width, 1 << 14),
            ("channels", patches.channels, 1 << 10), ("size", patches.size, 1 << 10),
        ]
        for (key, value, most) in sizes {
            try require((1...most).contains(value), "patches.\(key)", value, "it must be from 1 to \(most)")
        }
        try require(
            patches.height % patches.size == 0 && patches.width % patches.size == 0, "patches.size", patches.size,
            "it must divide the height and the width, \(patches.height) and \(patches.width)")
        try require(
            maximumPositions == patches.tokens, "maximum_positions", maximumPositions,
            "an image is a class token and its patches, so it must be \(patches.tokens)")
        try require(
            position == .learned, "position.kind", "'rotary'", "patches have learned positions: use 'learned'")
        try require(!tiedEmbeddings, "tied_embeddings", true, "classes are no patches: use false")
        try require(
            slidingWindow == nil, "sliding_window", slidingWindow ?? 0,
            "a patch sees the whole image: use null")
        try require(latent == nil, "latent", "a group", "latent attention is causal, and patches see the whole image")
        try require(
            convolution == nil, "convolution", "a group", "a convolution is causal, and patches see the whole image")
    }
}

extension PatchConfiguration {
    var jsonValue: JSONValue {
        .object([
            "height": .integer(height), "width": .integer(width), "channels": .integer(channels),
            "size": .integer(size),
        ])
    }

    init(_ fields: JSONFields) throws(ModelConfigurationError) {
        try fields.refuseUnknown(known: ["height", "width", "channels", "size"])
        try self.init(
            height: fields.integer("height"), width: fields.integer("width"), channels: fields.integer("channels"),
            size: fields.integer("size"))
    }
}
