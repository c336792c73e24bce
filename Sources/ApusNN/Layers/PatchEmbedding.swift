import ApusKernels
public import ApusTensor

// Shape letters: T tokens, P pixel values of a patch, D model width.

/// Patches of images through a linear map, plus a learned vector for each place in the sequence (ViT, Dosovitskiy et al. 2021,
/// section 3.1).
///
/// A value of 0 ... 255 is read as one from -1 to 1, and ``blank`` as 0. A token all of whose values are blank stands for no
/// patch: what it begins with is the bias and the vector of its place, which is all that a class token has.
public struct PatchEmbedding {
    /// (D, P), with a bias (D).
    public let projection: Linear
    /// (places of a sequence, D).
    public let positionTable: any Weight

    /// (D, P).
    public var table: any Weight { projection.weight }

    /// The value of a pixel that is not there.
    public static let blank: Int32 = 256

    /// An embedding over the given weights.
    public init(projection: Linear, positionTable: any Weight) {
        self.projection = projection
        self.positionTable = positionTable
    }

    /// The number that stands for a pixel's value: -1 to 1, and 0 for ``blank``.
    public static func brightness(_ value: Int32) -> Float { value == blank ? 0 : Float(value) / 127.5 - 1 }

    /// Pixels (T * P) `i32`, from 0 to ``blank``, to (T, D). Values are checked where they enter the program, not here.
    public func callAsFunction(_ tokens: Tensor, _ context: ForwardContext) throws -> Variable {
        let tape = context.tape
        let backend = tape.backend
        let places = context.layout.positions
        precondition(tokens.count == places.count * projection.weight.weightShape[1], "P pixels for each token")
        let pixels = Variable.constant(try brightness(of: tokens, places.count, backend))
        let patches = try projection(pixels, on: tape)
        let sum = try backend.empty(patches.shape, patches.dtype)
        try positionTable.withWeights(on: backend.stream) { try backend.embed(places, table: $0, into: sum) }
        try backend.add(sum, patches.tensor, into: sum)
        return tape.record("positions", inputs: [patches], output: sum) { [positionTable] flow in
            guard let dy = flow.takeOutput() else { return }
            if let gradient = try positionTable.gradient() {
                try flow.backend.embedBackward(dy, tokens: places, into: gradient)
            }
            try flow.accumulate(dy, into: patches)
        }
    }

    /// (T, P) of the weights' type: a look-up of each value, which every device can do.
    private func brightness(of tokens: Tensor, _ count: Int, _ backend: any Backend) throws -> Tensor {
        let values = (0...Self.blank).map(Self.brightness)
        let table = try backend.tensor(values, Shape(values.count, 1))
        var pixels = try backend.empty(Shape(tokens.count, 1), .f32)
        try backend.embed(tokens, table: table, into: pixels)
        let type = try projection.weight.withWeights(on: backend.stream) { $0.dtype }
        if type != .f32 {
            let converted = try backend.empty(pixels.shape, type)
            try backend.convert(pixels, into: converted)
            pixels = converted
        }
        return pixels.reshaped(count, tokens.count / max(count, 1))
    }
}
