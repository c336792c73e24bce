public import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: D model width, F dense and expert width, E experts, K choices per token.

/// A dense model as the beginning of a mixture of experts (sparse upcycling, Komatsuzaki et al. 2022): in the chosen
/// layers every expert begins as a copy of the layer's dense part, beside a fresh router.
///
/// With renormalised weights and no noise the new model computes what the dense one does: a token's K results are the
/// same, and their weights sum to 1.
public struct Upcycling: Sendable, Equatable {
    /// Which layers become mixtures.
    public enum Layers: Sendable, Equatable {
        /// Every second dense layer, the last of each two, as in the paper.
        case everyOther
        /// The dense ones of the second half of the layers.
        case lastHalf
        /// Every dense layer.
        case all
        /// These.
        case listed([Int])
    }

    /// E.
    public var experts: Int
    /// K.
    public var choices: Int
    /// Which layers become mixtures.
    public var layers: Layers
    /// Deviation of the noise that is added to each expert's copy, relative to the root mean square of the matrix; 0 for
    /// none.
    public var noise: Float
    /// Seed of the routers' first weights and of the noise.
    public var seed: UInt64
    /// How weights follow from scores.
    public var router: RouterConfiguration
    /// Which choices are computed in training.
    public var policy: TokenPolicy
    /// What keeps the routers in order.
    public var losses: RouterLosses

    /// Copies without noise in every second layer, a dropless router with renormalised weights and a balance loss.
    public init(
        experts: Int, choices: Int = 2, layers: Layers = .everyOther, noise: Float = 0, seed: UInt64 = 0,
        router: RouterConfiguration = RouterConfiguration(renormalizes: true), policy: TokenPolicy = .dropless,
        losses: RouterLosses = RouterLosses(balance: 0.01)
    ) {
        self.experts = experts
        self.choices = choices
        self.layers = layers
        self.noise = noise
        self.seed = seed
        self.router = router
        self.policy = policy
        self.losses = losses
    }

    /// The model that becomes of `folder`'s, decided and checked.
    ///
    /// - Throws: ``SurgeryError`` for layers that are not there or not dense; ``ModelConfigurationError`` for experts that
    ///   no model can have; ``FileError``, ``TensorMapError``.
    public func surgery(of folder: ModelFolder) throws -> ModelSurgery {
        guard noise >= 0, noise.isFinite else {
            throw SurgeryError.wrongOption(name: "noise", found: "\(noise)", wanted: "a number from 0")
        }
        let source = try StoredWeights(folder)
        let chosen = Set(try chosenLayers(of: source))
        var configuration = source.configuration
        for layer in chosen {
            guard case .dense(let width) = configuration.feedForward[layer] else { continue }
            configuration.feedForward[layer] = .moe(mixture(width: width, activation: configuration.activation))
        }
        let stored = Dictionary(uniqueKeysWithValues: source.parameters.map { ($0.name, $0) })
        return try ModelSurgery(configuration, of: [source]) { parameter in
            guard let layer = parameter.layer, chosen.contains(layer), parameter.role != .dense else {
                return .runs([try source.run(of: parameter, among: stored)])
            }
            guard let expert = parameter.expert else {
                // A selection bias begins at 0, a router's weight as it would in a model without a past.
                return parameter.shape.count == 1
                    ? .constant(0)
                    : .drawn(
                        deviation: configuration.initialDeviation,
                        stream: RandomStream(initialOf: parameter.name, seed: seed))
            }
            return try copy(of: parameter, layer, expert, source, stored)
        }
    }

    private func copy(
        of parameter: ParameterDescription, _ layer: Int, _ expert: Int, _ source: StoredWeights,
        _ stored: [String: ParameterDescription]
    ) throws -> TensorOrigin {
        let name = parameter.name.replacing(".experts.\(expert).", with: ".", maxReplacements: 1)
        guard let dense = stored[name], dense.shape == parameter.shape else {
            preconditionFailure("an expert has the shape of the dense layer")
        }
        let run = source.whole(dense)
        guard noise > 0 else { return .runs([run]) }
        let matrix = ["gate_proj", "up_proj", "down_proj"].firstIndex { name.contains($0) } ?? 3
        return .noisy(
            run, relative: noise,
            stream: RandomStream(seed: seed, purpose: .expertNoise, layer: layer, step: expert * 4 + matrix))
    }

    private func mixture(width: Int, activation: Activation) -> MoEConfiguration {
        MoEConfiguration(
            experts: experts, choices: choices, width: width, activation: activation, router: router, policy: policy,
            losses: losses)
    }

    private func chosenLayers(of source: StoredWeights) throws(SurgeryError) -> [Int] {
        let count = source.configuration.layers
        let dense = (0..<count).filter { source.configuration.moe(layer: $0) == nil }
        let chosen: [Int]
        switch layers {
        case .everyOther: chosen = dense.enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
        case .lastHalf: chosen = dense.filter { $0 >= (count + 1) / 2 }
        case .all: chosen = dense
        case .listed(let named):
            for layer in named {
                guard (0..<count).contains(layer) else {
                    throw .noSuchLayer(folder: source.path, layer: layer, layers: count)
                }
                if let moe = source.configuration.moe(layer: layer) {
                    throw .notDense(folder: source.path, layer: layer, experts: moe.experts)
                }
            }
            chosen = named
        }
        if chosen.isEmpty { throw .nothingToUpcycle(folder: source.path, layers: count) }
        return chosen
    }
}

extension StoredWeights {
    /// All elements of the stored tensor that is to stay what it is.
    func run(
        of parameter: ParameterDescription, among stored: [String: ParameterDescription], source: Int = 0
    ) throws -> StoredRun {
        guard let own = stored[parameter.name], own.shape == parameter.shape else {
            throw SurgeryError.unknownRouter(folder: path, tensor: parameter.name)
        }
        return whole(own, source: source)
    }
}
