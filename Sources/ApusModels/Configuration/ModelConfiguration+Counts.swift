import ApusExperts
import ApusKernels
import ApusNN

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token, V vocabulary.

/// How many parameters a model has, and how many of them one token meets.
public struct ParameterCounts: Sendable, Equatable {
    /// All stored parameters; a tied head is not stored a second time.
    public let total: Int
    /// What one token meets: everything but the E - K experts of each layer that it does not choose.
    ///
    /// Token table, position table and head count whole, as in the figures that models are published with.
    public let active: Int
    /// In the table of token vectors, or the projection of patches, and, where positions are learned, theirs.
    public let embedding: Int
    /// In tables of which a token reads a row and nothing else: not a token table that is the head as well.
    public let lookedUp: Int
    /// In the routed experts of all layers.
    public let experts: Int
    /// In the routed experts that one token chooses; where layers share theirs, the most that it can.
    public let activeExperts: Int
    /// In the routers.
    public let routers: Int

    /// Share of all parameters that lies in routed experts.
    public var expertShare: Double { Double(experts) / Double(max(total, 1)) }
}

/// Floating-point operations for one token, a multiplication and an addition counting as two.
///
/// Exact for the matrix products of the model; norms, activations, softmaxes and the optimizer are left out. Every
/// token counts K experts a layer, whatever a capacity drops or pads.
public struct TokenFLOPs: Sendable, Equatable {
    /// The projections of attention and of convolutions, and that of patches.
    public let projections: Double
    /// Queries with keys and weights with values; the taps of convolutions.
    public let attention: Double
    /// The routed experts that a token chooses, for each state of it that they read.
    public let experts: Double
    /// Dense layers, shared and residual experts with their coefficient.
    public let denseFeedForward: Double
    /// The routers.
    public let routers: Double
    /// The product with the vocabulary.
    public let head: Double

    /// One forward pass.
    public var forward: Double { projections + attention + experts + denseFeedForward + routers + head }
    /// Forward and backward: each product has two more of its size in backward.
    ///
    /// Recomputation is not counted.
    public var training: Double { 3 * forward }
    /// Share of the forward pass that routed experts take.
    public var expertShare: Double { experts / forward }
}

extension ModelConfiguration {
    /// Counts over ``parameterInventory()``.
    public func parameterCounts() -> ParameterCounts {
        var (total, embedding, experts, activeExperts, routers) = (0, 0, 0, 0, 0)
        // By the layer that has the experts: layers that share them may each choose others.
        var chosen: [Int: Int] = [:]
        for layer in mixtureLayers {
            guard let moe = moe(layer: layer) else { continue }
            chosen[moe.parametersOf ?? layer, default: 0] += moe.servedChoices
        }
        for parameter in parameterInventory() {
            total += parameter.count
            if parameter.layer == nil && parameter.name.hasPrefix("model.embed_") { embedding += parameter.count }
            switch parameter.role {
            case .dense: break
            case .router: routers += parameter.count
            case .expert:
                experts += parameter.count
                // Experts of a layer are all of one size, so the first ones stand for any.
                if let layer = parameter.layer, let expert = parameter.expert, expert < chosen[layer, default: 0] {
                    activeExperts += parameter.count
                }
            }
        }
        return ParameterCounts(
            total: total, active: total - experts + activeExperts, embedding: embedding,
            lookedUp: embedding - (tiedEmbeddings ? vocabulary * width : 0) - patchParameters, experts: experts,
            activeExperts: activeExperts, routers: routers)
    }

    /// In the projection of patches.
    private var patchParameters: Int { (patches.map { $0.values + 1 } ?? 0) * width }

    /// Keys that a query of a sequence of `length` tokens sees on average, itself included: of an image all.
    public func meanContext(sequence length: Int) -> Double {
        guard patches == nil else { return Double(length) }
        let window = min(slidingWindow ?? length, length)
        // The first `window` queries see 1, 2, ..., window keys, the others window each.
        let sum = Double(window) * Double(window + 1) / 2 + Double(length - window) * Double(window)
        return sum / Double(max(length, 1))
    }

    /// Operations for one token that sees `meanContext` keys on average (see ``meanContext(sequence:)``).
    ///
    /// - Parameter choices: Choices of a token on average, by layer, where they are other than K: those of a gate that goes
    ///   from dense to sparse.
    public func flopsPerToken(meanContext: Double, choices: [Int: Double] = [:]) -> TokenFLOPs {
        let (width, query) = (Double(width), Double(heads * headWidth))
        let key = Double(keyValueHeads * headWidth)
        var (experts, dense, routers) = (0.0, 0.0, 0.0)
        for (layer, part) in feedForward.enumerated() {
            switch part {
            case .dense(let inner): dense += 2 * width * Double(inner) * activation.products
            case .moe(let moe):
                let expert = 2 * width * Double(moe.width) * moe.activation.products
                let passes = Double(moe.passes)
                experts += passes * (choices[layer] ?? Double(moe.choices)) * expert
                dense += 2 * width * Double(moe.sharedWidth) * moe.activation.products
                if moe.isResidual { dense += expert + 2 * width * 2 }
                if moe.sharedWidth > 0 { dense += 2 * width * Double(moe.sharedCombination.coefficients) }
                routers += passes * 2 * width * Double(moe.router.nodes ?? 0)
                let inner = (moe.router.cosine?.width).map(Double.init)
                let scores = inner.map { width * $0 + $0 * Double(moe.experts) } ?? width * Double(moe.experts)
                routers += passes * 2 * scores
            }
        }
        let matrices = latent?.matrixElements(width: self.width, heads: heads) ?? width * (2 * query + 2 * key)
        // Queries with keys, weights with values.
        let met = query + (latent.map { Double(heads * $0.valueWidth) } ?? query)
        let convolved = Double(convolution?.layers.count ?? 0)
        let attending = Double(layers) - convolved
        // Four matrices, and a multiplication and an addition for each tap.
        let taps = convolved * 2 * width * Double(convolution?.width ?? 0)
        return TokenFLOPs(
            projections: 2 * (attending * matrices + convolved * 4 * width * width)
                + 2 * width * Double(patches?.values ?? 0),
            attention: attending * 2 * met * meanContext + taps,
            experts: experts, denseFeedForward: dense, routers: routers, head: 2 * width * Double(vocabulary))
    }
}

extension Activation {
    /// Products of a feed-forward layer, each of the layer's two widths.
    fileprivate var products: Double { Double(inputsPerOutput + 1) }
}
