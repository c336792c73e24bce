import ApusExperts
import ApusKernels

// Shape letters: D model width, F expert width, E experts.

/// Which tensor of a Hugging Face file is which of Apus, for one model.
///
/// Hub files hold a tensor for each matrix of each expert; transformers 5 holds experts fused in memory, gate above up,
/// and some files were written that way. Both forms are read, the first is written.
public struct HubTensorMap: Sendable {
    /// The family whose names the file has; `nil` for Apus' own names.
    public let family: HubFamily?
    /// The model.
    public let configuration: ModelConfiguration
    private let parameters: [ParameterDescription]
    private let names: Set<String>

    /// A map for `configuration`, whose sizes must have passed ``ModelConfiguration/checkSizes()``.
    ///
    /// - Parameter further: Tensors that the file holds besides the configuration's, under their own names
    ///   (``Transformer/furtherParameters``).
    public init(family: HubFamily?, configuration: ModelConfiguration, further: [ParameterDescription] = []) {
        self.family = family
        self.configuration = configuration
        parameters = configuration.parameterInventory() + further
        names = Set(parameters.map(\.name))
    }

    /// The file's name for a tensor of Apus.
    public func hubName(_ name: String) -> String {
        guard let mixture = MixtureName(name, infix: "mlp") else { return name }
        if family == .mixtral { return mixture.hubName(infix: "block_sparse_moe", words: Self.mixtralWords) }
        return family?.isDeepSeek == true ? mixture.hubName(infix: "mlp", words: Self.deepSeekWords) : name
    }

    /// Apus' name for a tensor of the file, or `nil` for a tensor that holds several or none of the model's.
    public func name(hub hubName: String) -> String? {
        var name = hubName
        if family == .mixtral {
            name = MixtureName(hubName, infix: "block_sparse_moe")?.name(words: Self.mixtralWords) ?? hubName
        } else if family?.isDeepSeek == true {
            name = MixtureName(hubName, infix: "mlp")?.name(words: Self.deepSeekWords) ?? hubName
        }
        // A name that the family spells another way is no name of the family's.
        return names.contains(name) && self.hubName(name) == hubName ? name : nil
    }

    /// The tensors of a file to be written, in the model's order, each a whole tensor of Apus.
    public var written: [TensorPlacement] { parameters.map { whole($0, as: hubName($0.name)) } }

    /// Finds for each tensor of a file its place in the model.
    ///
    /// Buffers of rotary frequencies, which old files hold, are passed over, and so is DeepSeek-V3's prediction layer
    /// (``predictionLayer(in:)``); nothing else may be left over.
    ///
    /// - Parameter tensors: names and shapes of all tensors of the file (of all shards).
    /// - Returns: placements in the model's order; together their slices are every tensor of the model once.
    /// - Throws: all problems, the first differing tensor of the model first.
    public func placements(
        of tensors: [(name: String, shape: [Int])]
    ) throws(TensorMapError) -> [TensorPlacement] {
        let further = Set(predictionLayer(in: tensors.map(\.name)))
        var search = PlacementSearch(tensors.filter { !further.contains($0.name) })
        var index = 0
        while index < parameters.count {
            let layer = parameters[index].layer
            let end = parameters[index...].firstIndex { $0.layer != layer } ?? parameters.count
            let group = parameters[index..<end]
            index = end
            let fused = layer.map { fusedPlacements(layer: $0) { search.has($0) } } ?? []
            var holder: [String: TensorPlacement] = [:]
            for placement in fused {
                for slice in placement.slices where holder[slice.name] == nil { holder[slice.name] = placement }
            }
            for parameter in group {
                let candidates = hubNames(parameter.name)
                let present = candidates.filter { search.has($0) }
                let main = holder[parameter.name] ?? whole(parameter, as: present.first ?? candidates[0])
                // A fused tensor counts where its first slice stands in the model's order.
                if main.slices[0].name == parameter.name { search.take(main) }
                for name in present where name != main.hubName {
                    search.report(.twice(name: name, also: main.hubName), taking: name)
                }
            }
        }
        return try search.finish()
    }

    // MARK: Names

    private static let mixtralWords = ["gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"]
    private static let deepSeekWords = ["shared_expert": "shared_experts"]

    /// The tensors of a file that serve something else than the model's own logits: the layer behind the last, with which
    /// DeepSeek-V3 predicts the token after the next. It is told by the projection that joins a token to a state; a layer
    /// without one is a layer that the configuration does not count.
    ///
    /// - Parameter names: of all tensors of the file.
    public func predictionLayer(in names: [String]) -> [String] {
        let layer = "model.layers.\(configuration.layers)."
        guard family == .deepseekV3, names.contains(layer + "eh_proj.weight") else { return [] }
        return names.filter { $0.hasPrefix(layer) }
    }

    /// Names under which a file may hold a tensor of Apus whole, the usual one first.
    private func hubNames(_ name: String) -> [String] {
        let usual = hubName(name)
        // With fused experts transformers also drops Mixtral's own word for the mixture.
        return family == .mixtral && name.hasSuffix(".mlp.gate.weight") ? [usual, name] : [usual]
    }

    private func whole(_ parameter: ParameterDescription, as hubName: String) -> TensorPlacement {
        let slice = TensorSlice(name: parameter.name, shape: parameter.shape, elements: 0..<parameter.count)
        return TensorPlacement(hubName: hubName, hubShape: parameter.shape, slices: [slice])
    }

    /// The fused tensors of a layer's experts that are there: gate and up (E, 2F, D), down (E, D, F).
    private func fusedPlacements(layer: Int, isPresent: (String) -> Bool) -> [TensorPlacement] {
        guard let family, let moe = configuration.moe(layer: layer), moe.activation == .swiglu else { return [] }
        let (model, inner) = (configuration.width, moe.width)
        let forms: [(name: String, shape: [Int], parts: [String], part: [Int])] = [
            ("gate_up_proj", [moe.experts, 2 * inner, model], ["gate_proj", "up_proj"], [inner, model]),
            ("down_proj", [moe.experts, model, inner], ["down_proj"], [model, inner]),
        ]
        var placements: [TensorPlacement] = []
        for infix in family == .mixtral ? ["mlp", "block_sparse_moe"] : ["mlp"] {
            for form in forms {
                let name = "model.layers.\(layer).\(infix).experts.\(form.name)"
                guard isPresent(name) else { continue }
                let size = inner * model
                let slices = (0..<moe.experts * form.parts.count).map { index in
                    let (expert, part) = index.quotientAndRemainder(dividingBy: form.parts.count)
                    return TensorSlice(
                        name: "model.layers.\(layer).mlp.experts.\(expert).\(form.parts[part]).weight",
                        shape: form.part, elements: index * size..<(index + 1) * size)
                }
                placements.append(TensorPlacement(hubName: name, hubShape: form.shape, slices: slices))
            }
        }
        return placements
    }
}

/// A tensor's name within the mixture of a layer: `model.layers.3.<infix>.<rest>`.
private struct MixtureName {
    let layer: Substring
    let rest: [Substring]

    init?(_ name: String, infix: String) {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count >= 5, parts[0] == "model", parts[1] == "layers", parts[3] == infix else { return nil }
        layer = parts[2]
        rest = Array(parts[4...])
    }

    func hubName(infix: String, words: [String: String]) -> String {
        let renamed = rest.map { words[String($0)] ?? String($0) }
        return "model.layers.\(layer).\(infix)." + renamed.joined(separator: ".")
    }

    func name(words: [String: String]) -> String? {
        // A word of Apus in a file of the family's is a mistake, not another spelling.
        guard !rest.contains(where: { words[String($0)] != nil }) else { return nil }
        let back = Dictionary(uniqueKeysWithValues: words.map { ($0.value, $0.key) })
        let renamed = rest.map { back[String($0)] ?? String($0) }
        return "model.layers.\(layer).mlp." + renamed.joined(separator: ".")
    }
}

/// The tensors of a file while their places are looked for.
private struct PlacementSearch {
    private let order: [(name: String, shape: [Int])]
    private var open: [String: [Int]]
    private var placements: [TensorPlacement] = []
    private var problems: [TensorMapError.Problem] = []

    init(_ tensors: [(name: String, shape: [Int])]) {
        order = tensors
        open = Dictionary(tensors.map { ($0.name, $0.shape) }) { first, _ in first }
    }

    func has(_ name: String) -> Bool { open[name] != nil }

    mutating func take(_ placement: TensorPlacement) {
        guard let shape = open.removeValue(forKey: placement.hubName) else {
            problems.append(.missing(name: placement.hubName, shape: placement.hubShape))
            return
        }
        if shape != placement.hubShape {
            problems.append(
                .wrongShape(name: placement.hubName, found: shape, expected: placement.hubShape))
        }
        placements.append(placement)
    }

    mutating func report(_ problem: TensorMapError.Problem, taking name: String) {
        open[name] = nil
        problems.append(problem)
    }

    consuming func finish() throws(TensorMapError) -> [TensorPlacement] {
        var problems = problems
        for tensor in order where open[tensor.name] != nil && !tensor.name.hasSuffix("rotary_emb.inv_freq") {
            problems.append(.leftOver(name: tensor.name, shape: tensor.shape))
        }
        if !problems.isEmpty { throw TensorMapError(problems: problems) }
        return placements
    }
}
