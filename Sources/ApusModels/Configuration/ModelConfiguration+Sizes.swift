import ApusExperts
import ApusTensor

extension ModelConfiguration {
    /// Most parameters that a configuration may ask for; beyond it a size is a mistake.
    static let mostParameters = 1e15
    /// Widest attention head that the kernels take.
    public static let largestHeadWidth = 256
    /// Most tensors that a configuration may ask for.
    static let mostTensors = 1 << 24

    /// Refuses sizes and settings that no model can have, so that everything computed from them later is in range.
    ///
    /// - Throws: `impossible`, naming the key of Apus' own `config.json`.
    public func checkSizes() throws(ModelConfigurationError) {
        let positives = [
            ("vocabulary", vocabulary), ("width", width), ("heads", heads), ("key_value_heads", keyValueHeads),
            ("head_width", headWidth), ("maximum_positions", maximumPositions), ("feed_forward", layers),
        ]
        for (key, value) in positives {
            try require(value > 0, key, value, "it must be at least 1")
            try require(value <= 1 << 40, key, value, "no model is that large")
        }
        try require(
            heads % keyValueHeads == 0, "key_value_heads", keyValueHeads,
            "it must divide 'heads', \(heads), for each key head serves a whole number of query heads")
        try require(
            headWidth <= Self.largestHeadWidth, "head_width", headWidth,
            "attention takes heads of at most \(Self.largestHeadWidth): use more heads, or a smaller head_width")
        if case .rotary(let theta) = position {
            try require(
                latent != nil || headWidth % 2 == 0, "head_width", headWidth,
                "rotary positions turn pairs, so it must be even")
            try require(theta > 0 && theta.isFinite, "position.theta", theta, "it must be a positive number")
        }
        try require(
            normEpsilon >= 0 && normEpsilon.isFinite, "norm_epsilon", normEpsilon, "it must be a number from 0")
        try require(
            initialDeviation >= 0 && initialDeviation.isFinite, "initial_deviation", initialDeviation,
            "it must be a number from 0")
        if let scale = initialScale {
            try require(scale > 0 && scale.isFinite, "initial_scale", scale, "it must be positive, or left out")
        }
        if let clip = attentionClip {
            try require(clip > 0 && clip.isFinite, "attention_clip", clip, "it must be positive, or null")
        }
        if let window = slidingWindow {
            try require(window > 0, "sliding_window", window, "it must be at least 1, or null")
        }
        try checkLatent()
        try checkPatches()
        try checkConvolution()
        for (layer, part) in feedForward.enumerated() {
            let scope = "feed_forward[\(layer)]"
            switch part {
            case .dense(let width):
                try require((1...1 << 40).contains(width), "\(scope).width", width, "it must be at least 1")
            case .moe(let moe):
                try moe.checkSizes(scope)
                try checkOwner(of: moe, layer)
                if let shortcut = moe.shortcut {
                    try require(
                        layer >= shortcut.position.precedingBlocks, "\(scope).shortcut.position",
                        shortcut.position.rawValue,
                        "no block stands before layer \(layer): use position 1, its own input, or no mixture there")
                }
            }
        }
        try checkPooling()
        try checkTotal()
    }

    /// A layer without parameters of its own has those of an earlier mixture that is like it in everything else.
    private func checkOwner(of moe: MoEConfiguration, _ layer: Int) throws(ModelConfigurationError) {
        guard let owner = moe.parametersOf else { return }
        let key = "feed_forward[\(layer)].parameters_of"
        try require((0..<layer).contains(owner), key, owner, "it must name an earlier layer")
        var expected = moe
        expected.parametersOf = nil
        try require(
            feedForward[owner] == .moe(expected), key, owner,
            "layer \(owner) must be a mixture with parameters of its own, and in everything else like this one")
        try require(
            moe.router.biasRate == 0, "feed_forward[\(layer)].router.bias_rate", moe.router.biasRate,
            "layers that share a router would move its bias one after the other: use 0, or parameters of its own")
    }

    /// A pooled balance loss adds up the layers' expert counts, one by one.
    private func checkPooling() throws(ModelConfigurationError) {
        let pooled = mixtures.filter { $0.losses.scope == .pooled }
        try require(
            Set(pooled.map(\.experts)).count <= 1, "losses.scope", "'pooled'",
            "layers with different numbers of experts cannot be pooled: use scope: layer")
        try require(
            pooled.isEmpty || (pooled.count == mixtures.count && Set(pooled.map(\.losses.balance)).count == 1),
            "losses.scope", "'pooled'",
            "all mixtures share one pooled loss: give every layer the same scope and coefficient")
    }

    /// Sums in floating point, because the sums of impossible sizes overflow.
    private func checkTotal() throws(ModelConfigurationError) {
        let (width, heads) = (Double(width), Double(heads + keyValueHeads) * Double(headWidth))
        var parameters = 2 * Double(vocabulary) * width + Double(maximumPositions) * width
        var tensors = 4.0
        for (layer, part) in feedForward.enumerated() {
            parameters +=
                convolution(layer: layer).map { $0.elements(width: self.width) }
                ?? latent?.matrixElements(width: self.width, heads: self.heads) ?? 2 * width * heads
            tensors += 12
            switch part {
            case .dense(let inner): parameters += 3 * width * Double(inner)
            case .moe(let moe):
                parameters += Double(moe.router.cosine?.width ?? 0) * (width + Double(moe.experts))
                parameters += 3 * width * (Double(moe.experts + 1) * Double(moe.width) + Double(moe.sharedWidth))
                tensors += 3 * Double(moe.experts)
            }
        }
        try require(
            parameters <= Self.mostParameters, "model", "about \(parameters) parameters",
            "at most \(Self.mostParameters) are possible: lower 'width', 'vocabulary' or the experts' sizes")
        try require(
            tensors <= Double(Self.mostTensors), "model", "about \(tensors) tensors",
            "at most \(Self.mostTensors) are possible: use fewer layers or experts")
    }
}

extension MoEConfiguration {
    fileprivate func checkSizes(_ scope: String) throws(ModelConfigurationError) {
        try require(
            (1...Self.mostExperts).contains(experts), "\(scope).experts", experts,
            "it must be from 1 to \(Self.mostExperts)")
        try require(
            (1...experts).contains(choices), "\(scope).choices", choices,
            "a token chooses from 1 to all \(experts) experts")
        try require((1...1 << 40).contains(width), "\(scope).width", width, "it must be at least 1")
        try require(
            (0...1 << 40).contains(sharedWidth), "\(scope).shared_width", sharedWidth,
            "it must be at least 1, or 0 for no shared expert")
        try checkShared(scope)
        try require(
            (0..<1).contains(router.jitter), "\(scope).router.jitter", router.jitter, "it must be from 0 to below 1")
        try require(
            router.weightScale.isFinite, "\(scope).router.weight_scale", router.weightScale, "it must be a number")
        try require(
            router.biasRate >= 0 && router.biasRate.isFinite, "\(scope).router.bias_rate", router.biasRate,
            "it must be a number from 0")
        try require(
            router.biasRate == 0 || router.scoring == .sigmoid, "\(scope).router.bias_rate", router.biasRate,
            "only 'sigmoid' scoring has a selection bias: set it to 0")
        try checkRouter(scope)
        try require(
            (0..<1).contains(dropout), "\(scope).dropout", dropout, "it must be from 0 to below 1")
        try require(
            dropout == 0 || bank != .blockSparse, "\(scope).dropout", dropout,
            "a block-sparse bank drops nothing of its activations: use 0, or the bank 'grouped'")
        for (key, value) in [("balance", losses.balance), ("z", losses.z), ("importance", losses.importance)] {
            try require(value >= 0 && value.isFinite, "\(scope).losses.\(key)", value, "it must be a number from 0")
        }
        try require((1...1 << 12).contains(blockSize), "\(scope).block_size", blockSize, "it must be from 1 to 4096")
        if bank == .blockSparse {
            try require(
                width % blockSize == 0, "\(scope).width", width,
                "a block-sparse bank needs whole blocks: use a multiple of block_size, \(blockSize)")
        }
        switch policy {
        case .dropless:
            try require(
                bank != .padded, "\(scope).bank", quoted(bank.rawValue),
                "a padded bank needs a capacity: set the policy to one, or the bank to 'grouped'")
        case .capacity(let factor, let minimum, let order, let evaluation):
            try require(factor.isFinite, "\(scope).policy.factor", factor, "it must be a number")
            try require(
                evaluation?.isFinite ?? true, "\(scope).policy.evaluation", evaluation ?? 0, "it must be a number")
            try require(minimum >= 0, "\(scope).policy.minimum", minimum, "it must be at least 0")
            try require(
                order != .importance || choices <= TokenPolicy.DropOrder.mostImportanceChoices, "\(scope).policy.order",
                quoted(order.rawValue),
                "it takes at most \(TokenPolicy.DropOrder.mostImportanceChoices) choices for each token")
        }
    }

    private func checkShared(_ scope: String) throws(ModelConfigurationError) {
        try require(
            sharedCombination == .sum || sharedWidth > 0 && !isResidual, "\(scope).shared_combination",
            quoted(sharedCombination.rawValue),
            "it mixes a shared expert, without a residual one: use 'sum', or a shared_width and residual false")
        guard let shortcut, shortcut.isDual else { return }
        try require(
            choices * 2 <= experts, "\(scope).choices", choices,
            "a dual shortcut gives each token two times \(choices) different experts of \(experts): use at most "
                + "\(experts / 2), or a shortcut that is not dual")
        try require(
            sharedWidth == 0 && !isResidual, "\(scope).shortcut.dual", true,
            "the experts read the present state themselves: use shared_width 0 and residual false")
        try require(
            router.groupLimit == nil && router.nodes == nil && router.annealing == nil && losses.scope == .layer,
            "\(scope).shortcut.dual", true,
            "its second choice is from all experts but the first's: use a router without groups, nodes and annealing, and "
                + "losses.scope 'layer'")
    }

    private func checkRouter(_ scope: String) throws(ModelConfigurationError) {
        if let cosine = router.cosine {
            try require(
                (1...1 << 20).contains(cosine.width), "\(scope).router.cosine.width", cosine.width,
                "it must be from 1 to 1048576")
            try require(
                cosine.floor > 0 && cosine.floor < cosine.temperature && cosine.temperature.isFinite,
                "\(scope).router.cosine.floor", cosine.floor, "it must be above 0 and below the temperature")
        }
        if let limit = router.groupLimit, let flaw = limit.flaw(experts: experts, choices: choices) {
            throw .impossible(
                key: "\(scope).router.groups", found: "\(limit.chosen) of \(limit.groups)",
                reason: "\(flaw.reason): \(flaw.remedy)")
        }
        if let nodes = router.nodes {
            let limit = GroupLimit(groups: nodes, chosen: 1, score: .sum)
            if let flaw = limit.flaw(experts: experts, choices: choices) {
                throw .impossible(
                    key: "\(scope).router.nodes", found: "\(nodes)", reason: "\(flaw.reason): \(flaw.remedy)")
            }
            try require(
                router.scoring == .softmaxThenTopK && router.cosine == nil && router.groupLimit == nil
                    && router.annealing == nil && losses.scope == .layer, "\(scope).router.nodes", nodes,
                "it is a softmax over nodes and one over each node's experts: use scoring 'softmax-top-k', "
                    + "losses.scope 'layer', and neither cosine, groups nor annealing")
        }
        guard let annealing = router.annealing else { return }
        try require(
            annealing.end > 0 && annealing.start >= annealing.end && annealing.start.isFinite,
            "\(scope).router.annealing.end", annealing.end, "it must be above 0 and at most the start")
        try require(
            annealing.steps >= 1, "\(scope).router.annealing.steps", annealing.steps, "it must be at least 1")
        try require(
            annealing.threshold >= 0 && annealing.threshold < 1, "\(scope).router.annealing.threshold",
            annealing.threshold, "it must be from 0 to below 1")
        try require(
            router.scoring == .softmaxThenTopK && !router.gumbel && router.groupLimit == nil,
            "\(scope).router.annealing", "\(annealing.steps) steps",
            "it is a softmax with noise of its own over all experts: use scoring 'softmax-top-k', no gumbel, no groups")
        try require(
            losses.scope == .layer, "\(scope).losses.scope", quoted(losses.scope.rawValue),
            "tokens have different numbers of experts while a gate is annealed: use 'layer'")
    }
}

func require(
    _ holds: Bool, _ key: String, _ found: some CustomStringConvertible, _ reason: String
) throws(ModelConfigurationError) {
    if !holds { throw .impossible(key: key, found: found.description, reason: reason) }
}
