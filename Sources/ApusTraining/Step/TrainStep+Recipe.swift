public import ApusKernels
import ApusModels
import ApusNN
import ApusOptim

extension TrainStep {
    /// The step of a recipe, over a model and an optimizer at their beginning: the weights follow from the recipe's seed.
    ///
    /// - Throws: ``TensorError`` when memory runs out.
    public init(_ recipe: Recipe, backend: any Backend) throws {
        let model = try Transformer(
            recipe.model, backend: backend, precision: recipe.training.precision, isTrained: true,
            positions: recipe.data.sequenceLength)
        try model.store.initialize(seed: recipe.seed, backend: backend)
        let constants = recipe.training.optimizer
        let optimizer = try AdamW(
            model.store,
            configuration: AdamW.Configuration(
                beta1: constants.beta1, beta2: constants.beta2, epsilon: constants.epsilon,
                weightDecay: constants.weightDecay), seed: recipe.seed, backend: backend)
        self.init(
            model: model, optimizer: optimizer, backend: backend, configuration: recipe.training, seed: recipe.seed)
    }
}
