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
        return Dictionary(
            uniqueKeysWithValues: zip(places, counts).map { place, count in
                var mixture = layer
                mixture.experts = count
                return (place, mixture)
            })
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
