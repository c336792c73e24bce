import ApusExperts
public import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
public import ApusParallel

extension TrainStep {
    /// The step of a recipe, over a model and an optimizer at their beginning: the weights follow from the recipe's seed,
    /// or are those of the folder that it names.
    ///
    /// - Parameter groups: The ranks that take it together, in the recipe's layout; `nil` for this one alone. The recipe's
    ///   batch must fit them: ``LayoutConfiguration/layout(ranks:for:)``.
    /// - Throws: ``StartError`` for a folder whose model is another, ``FileError``; ``TensorError`` when memory runs out; ``PartitionError`` for a model that does not fit the layout.
    public init(_ recipe: Recipe, over groups: ParallelGroups? = nil, backend: any Backend) throws {
        let parallel = recipe.parallel
        let partition: any Partition = groups.map { parallel.partition(over: $0) } ?? WholeModel()
        let model = try Transformer(
            recipe.model, backend: backend, precision: recipe.training.precision, isTrained: true,
            positions: recipe.data.sequenceLength, partition: partition)
        let start = try recipe.training.start.map { try StartingWeights($0, of: recipe.model) }
        if let start {
            // What the folder does not hold is none of the model's: there is nothing left to draw.
            try start.load(into: model, backend: backend)
        } else {
            try model.store.initialize(seed: recipe.seed, backend: backend)
        }
        let teacher = try recipe.distillation.map {
            try Teacher($0, of: recipe, over: groups, backend: backend)
        }
        if recipe.distillation?.start == .teacher { try teacher?.begin(model, backend: backend) }
        let constants = recipe.training.optimizer
        let optimizer = try AdamW(
            model.store,
            configuration: AdamW.Configuration(
                beta1: constants.beta1, beta2: constants.beta2, epsilon: constants.epsilon,
                weightDecay: constants.weightDecay), seed: recipe.seed,
            dividesState: groups != nil && parallel.zero > .none, backend: backend)
        self.init(
            model: model, optimizer: optimizer, backend: backend, configuration: recipe.training, seed: recipe.seed,
            ranks: groups.map { StepRanks($0, parallel, model: model, backend: backend) }, teacher: teacher)
    }
}
