extension StepMetrics {
    /// What TensorBoard shows of the step; with `includesBars` also the load of each expert.
    ///
    /// The part of a tag before the slash is its group of charts; behind it stands the name that the value has in
    /// `metrics.jsonl`, or the layer. A value that is missing or not a number is left out.
    func eventValues(includesBars: Bool) -> [(tag: String, value: Event.Value)] {
        let scalars: [(String, Double?)] = [
            ("loss/loss", loss), ("loss/divergence", divergence), ("loss/held_out_loss", heldOutLoss),
            ("loss/balance_loss", balanceLoss),
            ("loss/z_loss", zLoss), ("experts/dropped_fraction", droppedFraction),
            ("optimizer/grad_norm", gradientNorm), ("optimizer/lr", learningRate),
            ("speed/tokens_per_second", tokensPerSecond), ("speed/mfu", mfu), ("memory/peak_bytes", Double(peakBytes)),
        ]
        let loads = expertShares.flatMap { layer, shares -> [(String, Double?)] in
            let shape = LoadShape(shares)
            return [("peak_to_mean/\(name(layer))", shape.peakToMean), ("entropy/\(name(layer))", shape.evenness)]
        }
        let curves = (scalars + loads).compactMap { tag, value -> (tag: String, value: Event.Value)? in
            guard let value, value.isFinite else { return nil }
            return (tag, .scalar(value))
        }
        guard includesBars else { return curves }
        return curves
            + expertShares.compactMap { layer, shares in
                guard !shares.isEmpty, shares.allSatisfy(\.isFinite) else { return nil }
                return ("expert_share_percent/\(name(layer))", .bars(shares.map { 100 * $0 }))
            }
    }

    /// Tags are sorted as text.
    private func name(_ layer: Int) -> String { layer < 10 ? "layer_0\(layer)" : "layer_\(layer)" }
}
