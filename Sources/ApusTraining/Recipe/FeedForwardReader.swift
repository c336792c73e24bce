import ApusExperts
import ApusKernels
import ApusModels

/// Reads which layers are mixtures of experts and what each layer's feed-forward part is.
struct FeedForwardReader {
    let model: Section
    let base: ModelConfiguration?
    let count: Int
    let activation: Activation

    init(model: Section, base: ModelConfiguration?, layers: Int, activation: Activation) {
        self.model = model
        self.base = base
        self.count = layers
        self.activation = activation
    }

    /// The feed-forward part of each layer.
    func layers() -> [ModelConfiguration.FeedForward] {
        let mixtures = self.mixtures()
        if mixtures.count == count, model.value("feed_forward_width") != nil {
            model.require(
                false, "feed_forward_width",
                with: ["layers", "experts", "experts.every", "experts.layers"].map(model.full),
                "has no meaning, because every layer is a mixture of experts",
                "remove it, or name fewer layers with experts.every or experts.layers")
        }
        let width = mixtures.count == count ? 1 : denseWidth()
        return (0..<count).map { layer in
            if let mixture = mixtures[layer] { .moe(mixture) } else { .dense(width: width) }
        }
    }

    private func denseWidth() -> Int {
        let width: Int? = base?.feedForward.lazy.compactMap { if case .dense(let width) = $0 { width } else { nil } }
            .first
        return model.integer("feed_forward_width", 1...1 << 20, default: width, example: 1024)
    }

    /// The mixture of each layer that has one, by layer.
    private func mixtures() -> [Int: MoEConfiguration] {
        let inherited = (0..<count).compactMap { layer -> (Int, MoEConfiguration)? in
            guard let base, var moe = base.moe(layer: layer % base.layers) else { return nil }
            if model.value("activation") != nil { moe.activation = activation }
            return (layer, moe)
        }
        guard model.value("experts") != nil else {
            let moe = model.isNull("experts") ? [] : inherited
            return Dictionary(uniqueKeysWithValues: moe)
        }
        let experts = model.section("experts")
        let places = self.places(experts, inherited: inherited.map(\.0))
        let template = inherited.first?.1
        let counts = self.counts(experts, places: places, inherited: inherited.map(\.1.experts))
        let reader = ExpertsReader(section: experts, template: template, activation: activation)
        let layer = reader.layer(counts: counts)
        if let shortcut = layer.shortcut, let early = places.first(where: { $0 < shortcut.position.precedingBlocks }) {
            experts.section("shortcut").require(
                false, "position", with: ["every", "layers"].map(experts.full) + [model.full("layers")],
                "is \(shortcut.position.rawValue), a state of the block before, and layer \(early) has none before it",
                "use position: 1, or leave layer \(early) dense, as experts.every: 2 does")
        }
        let share = self.share(experts, counts: counts, biasRate: layer.router.biasRate)
        return Dictionary(
            uniqueKeysWithValues: places.indices.map { index in
                var mixture = layer
                mixture.experts = counts[index]
                if index % share > 0 { mixture.parametersOf = places[index - index % share] }
                return (places[index], mixture)
            })
    }

    /// How many successive mixtures have one set of parameters.
    private func share(_ experts: Section, counts: [Int], biasRate: Float) -> Int {
        let share = experts.integer("share", 1...ModelReader.mostLayers, default: 1, example: 2)
        let fitting = (1...max(counts.count, 1)).filter { counts.count % $0 == 0 }
        let nearest = fitting.min { abs($0 - share) < abs($1 - share) } ?? 1
        let isWhole = counts.count % share == 0
        experts.require(
            isWhole, "share", with: ["count", "every", "layers"].map(experts.full) + [model.full("layers")],
            "is \(share), which does not divide the \(counts.count) mixture-of-experts layers",
            "the nearest that works is \(nearest)")
        let isEven = !isWhole || counts.indices.allSatisfy { counts[$0] == counts[$0 - $0 % share] }
        experts.require(
            isEven, "share", with: [experts.full("count")],
            "is \(share), but the \(share) layers that share have different numbers of experts",
            "give them the same count, or use 1")
        experts.require(
            share == 1 || biasRate == 0, "share", with: ["router.bias_rate", "router.scoring"].map(experts.full),
            "is \(share), but layers that share a router cannot balance by its selection bias",
            "use router.bias_rate: 0, or share: 1")
        return isWhole ? share : 1
    }

    /// The layers that are mixtures, in order.
    private func places(_ experts: Section, inherited: [Int]) -> [Int] {
        let everyKey = experts.full("every")
        if let (layers, _) = experts.integers("layers", 0...ModelReader.mostLayers - 1, example: "[1, 3]") {
            experts.require(
                experts.value("every") == nil, "every", "stands beside experts.layers, which says the same",
                "keep one of them")
            experts.require(
                !layers.isEmpty, "layers", "is an empty list",
                "name a layer, or take model.experts away for a dense model")
            experts.require(
                Set(layers).count == layers.count, "layers", "names a layer twice", "name each layer once")
            experts.require(
                layers.allSatisfy { $0 < count }, "layers", with: [model.full("layers")],
                "names layer \(layers.max() ?? 0), but the model has \(count) layers, counted from 0",
                "use 0 to \(count - 1)")
            return Array(Set(layers.filter { $0 < count })).sorted()
        }
        if experts.value("every") != nil || inherited.isEmpty {
            let period = experts.integer("every", 1...ModelReader.mostLayers, default: 1, example: 1)
            experts.require(
                period <= count, "every", with: [everyKey, model.full("layers")],
                "is \(period), so none of the \(count) layers is a mixture of experts", "use at most \(count)")
            return (0..<count).filter { ($0 + 1) % period == 0 }
        }
        return inherited
    }

    /// E of each mixture.
    private func counts(_ experts: Section, places: [Int], inherited: [Int]) -> [Int] {
        let most = MoEConfiguration.mostExperts
        guard let (values, isList) = experts.integers("count", 1...most, example: "8, or [4, 4, 8, 8]") else {
            if let first = inherited.first, inherited.allSatisfy({ $0 == first }) {
                return Array(repeating: first, count: places.count)
            }
            if inherited.count == places.count { return inherited }
            experts.flaw(
                "count", "is missing", "an integer from 1 to \(most) is needed, or a list with one for each of them")
            return Array(repeating: most, count: places.count)
        }
        guard isList else { return Array(repeating: values.first ?? most, count: places.count) }
        experts.require(
            values.count == places.count, "count",
            with: [model.full("layers"), experts.full("every"), experts.full("layers")],
            "lists \(values.count) numbers for \(places.count) mixture-of-experts layers",
            "list \(places.count), or give one number for all")
        return values.count == places.count ? values : Array(repeating: values.min() ?? most, count: places.count)
    }
}
