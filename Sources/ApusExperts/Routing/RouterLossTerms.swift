import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, G groups.

/// The auxiliary losses of one layer: their values, and their gradients as roots on the tape.
///
/// Each is a mean over the tokens of the global batch that count, formed group by group: a group of `T_g` of them
/// weighs `T_g / T`. So the sum over micro-batches and ranks is the same however the batch is cut.
struct RouterLossTerms {
    let losses: RouterLosses
    let layout: TokenLayout
    let globalTokens: Int

    /// Token ranges that balance is measured over: the layout's, or all tokens of the pass when it is pooled.
    var balanceGroups: [Range<Int>] {
        losses.scope == .pooled ? [0..<layout.tokenCount] : layout.balanceGroups
    }

    private var share: Float { 1 / Float(globalTokens) }

    /// `E * sum over g of T_g / T * sum over e of f[g, e] * P[g, e]`, f the shares of choices, P the mean probabilities
    /// (Switch Transformers equation 4).
    ///
    /// `T_g` cancels, for P is a sum over `T_g` divided by it. The value is formed even when the coefficient is 0: it
    /// is shown.
    ///
    /// A two-level router has the same for its `nodes`, whose choices and probabilities are those of their experts together,
    /// and added to it the same for the experts of each node (SMILE, He et al. 2022).
    func addBalance(_ sums: Variable, counts: Tensor, nodes: Int?, on tape: Tape) throws -> Tensor {
        let backend = tape.backend
        let (groups, experts) = (sums.shape[0], sums.shape[1])
        return try addRoot(sums, losses.balance, on: tape) { value, gradient in
            guard let nodes else {
                return try backend.balanceLoss(
                    sums.tensor, counts: counts, scale: Float(experts) * share, into: value,
                    coefficient: losses.balance, gradient: gradient)
            }
            let within = Shape(groups * nodes, experts / nodes)
            try backend.balanceLoss(
                sums.tensor.reshaped(within[0], within[1]), counts: counts.reshaped(within[0], within[1]),
                scale: Float(within[1]) * share, into: value, coefficient: losses.balance,
                gradient: gradient?.reshaped(within[0], within[1]))
            let places = try NodeGate.places(nodes, experts, backend)
            let level = Shape(groups, nodes)
            let (nodeSums, nodeCounts) = (
                try backend.empty(level, .f32, .workspace), try backend.empty(level, .f32, .workspace)
            )
            try backend.matMul(sums.tensor.matrix, places.transpose, into: nodeSums)
            try backend.matMul(counts.matrix, places.transpose, into: nodeCounts)
            let nodeValue = try backend.empty(Shape(1), .f32, .workspace)
            let nodeGradient = try gradient.map { _ in try backend.empty(level, .f32, .workspace) }
            try backend.balanceLoss(
                nodeSums, counts: nodeCounts, scale: Float(nodes) * share, into: nodeValue,
                coefficient: losses.balance, gradient: nodeGradient)
            try backend.add(value, nodeValue, into: value)
            guard let gradient, let nodeGradient else { return }
            let wide = try backend.empty(gradient.shape, .f32, .workspace)
            try backend.matMul(nodeGradient.matrix, places.matrix, into: wide)
            try backend.add(gradient, wide, into: gradient)
        }
    }

    /// The mean of `logSumExp(logits[t])^2` (ST-MoE section 3).
    func addLogits(_ logits: Variable, on tape: Tape) throws -> Tensor {
        try addRoot(logits, losses.z, on: tape) {
            try tape.backend.logitLoss(
                logits.tensor, mask: layout.tokenMask, scale: share, into: $0, coefficient: losses.z, gradient: $1)
        }
    }

    /// `sum over g of T_g / T * CV(load[g])^2`, with `CV^2 = variance / mean^2` over the experts' summed weights
    /// (Shazeer et al. 2017, equation 7).
    func addImportance(_ weights: Variable, ids: Tensor, experts: Int, on tape: Tape) throws -> Tensor {
        try addRoot(weights, losses.importance, on: tape) {
            try tape.backend.importanceLoss(
                weights.tensor, ids: ids, experts: experts, groups: layout.routingGroups, mask: layout.tokenMask,
                scale: share,
                into: $0, coefficient: losses.importance, gradient: $1)
        }
    }

    /// Lets `form` write the value of a loss and, when one is wanted, its gradient, which becomes a root.
    private func addRoot(
        _ variable: Variable, _ coefficient: Float, on tape: Tape,
        _ form: (_ value: Tensor, _ gradient: Tensor?) throws -> Void
    ) throws -> Tensor {
        let value = try tape.backend.empty(Shape(1), .f32)
        let isWanted = coefficient != 0 && tape.isRecording
        let gradient = isWanted ? try tape.backend.empty(variable.shape, .f32) : nil
        try form(value, gradient)
        if let gradient { try tape.addRoot(variable, seed: gradient) }
        return value
    }
}
