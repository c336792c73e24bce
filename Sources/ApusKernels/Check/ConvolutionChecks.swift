import ApusTensor

// Shape letters: T tokens, C channels, W taps.

extension OpCheck {
    static let convolution: [[OpCheck]] = [
        make("short convolution") { probe in
            for (lengths, c, w) in sizes {
                let input = try ConvolutionInput(&probe, lengths, c, w)
                let y = try probe.empty(input.tokens, c)
                try probe.backend.shortConvolution(
                    input.x.tensor, taps: input.taps.tensor, positions: input.positions(probe), into: y)
                probe.expect(y, input.result(input.x.values, input.taps.values))
            }
        },
        make("short convolution backward") { probe in
            for (lengths, c, w) in sizes {
                for type in probe.gradientTypes {
                    let input = try ConvolutionInput(&probe, lengths, c, w)
                    let dy = try probe.draw(input.tokens, c)
                    let dx = try probe.empty(input.tokens, 3 * c)
                    let sums = try probe.draw(w, c, dtype: type)
                    try probe.backend.shortConvolutionBackward(
                        dy.tensor, x: input.x.tensor, taps: input.taps.tensor, positions: input.positions(probe),
                        into: dx, tapGradient: sums.tensor)
                    probe.expect(
                        dx,
                        numericGradient(input.x.values) { dot(input.result($0, input.taps.values), dy.values) })
                    let slopes = numericGradient(input.taps.values) {
                        dot(input.result(input.x.values, $0), dy.values)
                    }
                    probe.expect(sums.tensor, zip(sums.values, slopes).map { $0 + $1 })
                }
            }
        },
    ]

    /// Lengths of the sequences, C, W: shorter than the taps, of one token, and wider than a vector.
    private static let sizes = [([1], 1, 2), ([2, 1, 5], 3, 4), ([7, 3], 19, 3)]
}

/// What a convolution reads, and its definition: a sum over earlier tokens of the same sequence.
private struct ConvolutionInput {
    let x: CheckOperand
    let taps: CheckOperand
    let lengths: [Int]
    let channels: Int
    let width: Int

    init(_ probe: inout CheckProbe, _ lengths: [Int], _ channels: Int, _ width: Int) throws {
        self.lengths = lengths
        self.channels = channels
        self.width = width
        x = try probe.draw(lengths.reduce(0, +), 3 * channels)
        taps = try probe.draw(width, channels)
    }

    var tokens: Int { lengths.reduce(0, +) }

    func positions(_ probe: CheckProbe) throws -> Tensor { try probe.put(lengths.flatMap { Array(0..<$0) }, tokens) }

    /// (T, C).
    func result(_ x: [Double], _ taps: [Double]) -> [Double] {
        func part(_ index: Int, _ token: Int, _ channel: Int) -> Double {
            x[(token * 3 + index) * channels + channel]
        }
        var result: [Double] = []
        var first = 0
        for length in lengths {
            for token in first..<first + length {
                for channel in 0..<channels {
                    let sum = (max(first, token - width + 1)...token).reduce(0.0) { sum, earlier in
                        sum + taps[(token - earlier) * channels + channel] * part(1, earlier, channel)
                            * part(2, earlier, channel)
                    }
                    result.append(part(0, token, channel) * sum)
                }
            }
            first += length
        }
        return result
    }
}
