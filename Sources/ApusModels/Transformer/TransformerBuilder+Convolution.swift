import ApusExperts
import ApusNN
import ApusTensor

// Shape letters: D model width, which is the number of channels, W taps.

extension TransformerBuilder {
    /// A gated short convolution, whose channels are divided as hidden units are.
    mutating func shortConvolution(
        _ prefix: String, _ layer: Int, _ convolution: ConvolutionConfiguration
    ) throws -> ShortConvolution {
        let inputs = try ConvolutionConfiguration.projections.map { name in
            try declare(
                "\(prefix).\(name)_proj.weight", Shape(width, width), layer: layer, cut: .hidden(dimension: 0), initial)
        }
        let taps = try declare(
            "\(prefix).taps.weight", Shape(convolution.width, width), layer: layer, cut: .hidden(dimension: 1),
            inputs: convolution.width,
            // The sum of W products then varies as one of them does.
            .normal(deviation: 1 / Float(convolution.width).squareRoot()))
        let output = try declare(
            "\(prefix).o_proj.weight", Shape(width, width), layer: layer, cut: .hidden(dimension: 1), initialOutput)
        let channels = taps.localShape[1]
        return ShortConvolution(
            layer: layer, projection: Linear(weight: ParameterSpan(inputs, shape: Shape(3 * channels, width))),
            taps: taps, output: Linear(weight: output))
    }
}
