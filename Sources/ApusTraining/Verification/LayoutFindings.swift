public import ApusNN
public import ApusParallel

/// What a layout came to, beside what one rank came to.
public struct LayoutFindings: Sendable {
    /// One parameter: the norms of differences, and of what they are differences from.
    public struct Parameter: Sendable {
        /// Its name.
        public let name: String
        /// Its role.
        public let role: ParameterRole
        /// The norm of its gradient on one rank.
        public let gradientNorm: Double
        /// The difference of the gradient.
        public let gradient: Double
        /// The norm of its weights on one rank after a few steps of descent.
        public let descentNorm: Double
        /// The difference of these weights.
        public let descent: Double
        /// The norm of its weights on one rank after a few steps of AdamW.
        public let adamWNorm: Double
        /// The difference of these weights.
        public let adamW: Double
    }

    /// One step's loss.
    public struct Loss: Sendable {
        /// Which run.
        public let run: String
        /// Its step.
        public let step: Int
        /// On the layout.
        public let found: Float
        /// On one rank.
        public let expected: Float

        /// The relative difference.
        var difference: Double {
            let distance = abs(Double(found) - Double(expected))
            return distance.isFinite ? distance / max(abs(Double(expected)), 1e-30) : .infinity
        }
    }

    /// One token that went to other experts.
    public struct Choice: Sendable, Equatable {
        /// The layer.
        public let layer: Int
        /// The token, by its place in the batch.
        public let token: Int
        /// The largest difference between scores of experts that one run chose and the other did not.
        public let gap: Float
    }

    /// The choices of a step without replay.
    public struct Choices: Sendable {
        /// Choices that were compared.
        public let compared: Int
        /// Tokens with differing choices, in all.
        public let count: Int
        /// The first of them, widest gap first.
        public let differing: [Choice]
    }

    /// How far numbers may be apart.
    public struct Tolerance: Sendable, Equatable {
        /// Of a gradient, as a part of its norm and a thousandth of the median norm of its role.
        public var gradient: Double
        /// Of weights after descent, likewise.
        public var descent: Double
        /// Of weights after AdamW, likewise.
        public var adamW: Double
        /// Of a loss, relative.
        public var loss: Double
        /// Of the scores between which a differing choice fell.
        public var gap: Float

        /// That of a precision; `hasKinks` for activations whose derivative jumps, which is ReLU's.
        public init(_ precision: Precision, hasKinks: Bool = false) {
            let isExact = precision == .f32
            gradient = isExact ? 1e-5 : 2e-2
            descent = isExact ? 1e-5 : 2e-2
            // AdamW brings small gradients, and with them their rounding, to the size of large ones. Where rounding moves one
            // hidden value of one token across a kink, its part of a gradient is there in one run and not in the other: with
            // some hundred tokens 2e-4 of a matrix. A step taken with another gradient is a hundred times that.
            adamW = isExact ? hasKinks ? 1e-3 : 1e-4 : 5e-2
            loss = isExact ? 1e-5 : 2e-2
            gap = isExact ? 1e-5 : 2e-2
        }
    }

    /// A parameter's differences as parts of what is allowed: 1 is the limit.
    public struct Row: Sendable {
        /// The parameter.
        public let parameter: Parameter
        /// Relative difference of the gradient.
        public let gradient: Double
        /// Relative difference of the weights after descent.
        public let descent: Double
        /// Relative difference of the weights after AdamW.
        public let adamW: Double
        /// The largest of the three, each over its tolerance.
        public let worst: Double
    }

    /// The layout.
    public let layout: Layout
    /// The precision.
    public let precision: Precision
    /// All parameters.
    public let parameters: [Parameter]
    /// All losses.
    public let losses: [Loss]
    /// The choices of the free step.
    public let choices: Choices
    /// Whether routing was replayed; with a pooled balance loss it is not, and choices must not differ at all.
    public let isReplayed: Bool
    /// Whether the model has activations whose derivative jumps.
    public let hasKinks: Bool

    /// The tolerances in force.
    public var tolerance: Tolerance { Tolerance(precision, hasKinks: hasKinks) }

    /// Every parameter, the worst first.
    public var rows: [Row] {
        let tolerance = tolerance
        func floor(_ value: (Parameter) -> Double) -> [ParameterRole: Double] {
            Dictionary(grouping: parameters, by: \.role).mapValues { members in
                let norms = members.map(value).sorted()
                return 1e-3 * norms[norms.count / 2]
            }
        }
        let floors = (floor(\.gradientNorm), floor(\.descentNorm), floor(\.adamWNorm))
        func relative(_ difference: Double, _ norm: Double, _ floor: Double?) -> Double {
            difference == 0 ? 0 : difference / (norm + (floor ?? 0))
        }
        return parameters.map { parameter in
            let role = parameter.role
            let gradient = relative(parameter.gradient, parameter.gradientNorm, floors.0[role])
            let descent = relative(parameter.descent, parameter.descentNorm, floors.1[role])
            let adamW = relative(parameter.adamW, parameter.adamWNorm, floors.2[role])
            return Row(
                parameter: parameter, gradient: gradient, descent: descent, adamW: adamW,
                worst: max(gradient / tolerance.gradient, descent / tolerance.descent, adamW / tolerance.adamW))
        }.sorted { ($1.worst, $0.parameter.name) < ($0.worst, $1.parameter.name) }
    }

    /// The largest relative difference of a loss.
    public var lossDifference: Double { losses.map(\.difference).max() ?? .infinity }

    /// Whether everything lies within its tolerance.
    public var agrees: Bool {
        // Not the other way round: what is no number must fail.
        let isClose = rows.allSatisfy { $0.worst <= 1 } && lossDifference <= tolerance.loss
        let choicesAgree =
            isReplayed
            ? choices.differing.allSatisfy { $0.gap <= tolerance.gap }
            : choices.count == 0
        return isClose && choicesAgree && !parameters.isEmpty && !losses.isEmpty
    }
}
