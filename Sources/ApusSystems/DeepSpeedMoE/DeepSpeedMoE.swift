/// DeepSpeed-MoE (Rajbhandari, Li, Yao, Zhang, Aminabadi, Awan, Rasley, He: "DeepSpeed-MoE: Advancing Mixture-of-Experts
/// Inference and Training to Power Next-Generation AI Scale", ICML 2022, arXiv 2201.05596): what the paper has, and where
/// each of it lives.
///
/// ### Mechanisms
///
/// | mechanism | section | type | recipe key | test |
/// |---|---|---|---|---|
/// | top-1 experts with a capacity | 3 | `TopKRouter`, `TokenPolicy` | `experts.choices`, `policy.capacity` | `DeepSpeedGatingTests` |
/// | pyramid: more experts in later layers | 4.1 | `ModelConfiguration` | `experts.count`, a list | `RecipeReadingTests` |
/// | mixtures in chosen layers, as first or second half | 4.1 | `ModelConfiguration` | `experts.layers` | `RecipeReadingTests` |
/// | residual experts, the coefficient learned | 4.1 | `ResidualExpert` | `experts.residual` | `GradientTests` |
/// | the same, a plain sum | 4.1 | `ExpertMatrices` | `experts.shared_width` | `GradientTests` |
/// | expert degree by layer | 4.1 | `ParallelGroups` | `layout.expert` | `ParallelGroupsTests` |
/// | students with fewer layers | 4.2 | `StartingWeights`, `Teacher` | `distillation.layers` | `StartingWeightsTests` |
/// | staged distillation | 4.2 | `DistillationConfiguration` | `distillation.until` | `DistillationTests`, `CLIDistillTests` |
/// | expert parallelism and slicing | 5.2 | `ExpertParallelDispatcher`, `ExpertShare` | `layout.expert` | `SlicedExpertTests` |
/// | hierarchical all-to-all | 5.3 | `HierarchicalAllToAll` | `layout.ranks_per_node` | `HierarchicalAllToAllTests` |
/// | parallelism-coordinated all-to-all | 5.3 | `TensorBridge` | `layout.drop_duplicates` | `CoordinatedTrafficTests` |
/// | gating by a table of tokens and experts | 5.4 | `RouterPassOp` |  | `RouterLaunchTests` |
///
/// ### Files, below `Sources`
///
/// | type | place |
/// |---|---|
/// | router, capacity | `ApusExperts/Routing/TopKRouter.swift`, `ApusKernels/Ops/Capacity.swift` |
/// | `ResidualExpert` | `ApusExperts/Experts/ResidualExpert.swift` |
/// | `Teacher`, the loss of a student | `ApusTraining/Distillation`, `ApusKernels/Ops/Distillation.swift` |
/// | `StartingWeights` | `ApusTraining/Run/StartingWeights.swift` |
/// | dispatchers | `ApusParallel/Dispatch` |
/// | routing in few launches on a GPU | `ApusCUDA/Kernels/expert_choice.cu` |
/// | the paper's models as presets, `deepspeed-pr-moe-350m` and others | `ApusModels/Configuration/Presets.swift` |
///
/// ### Claims
///
/// | claim | section | measured by | report |
/// |---|---|---|---|
/// | a routing kernel six times as fast as one-hot products | 5.4 | `apus bench routing` | `Benchmarks/reports/h100.md` |
/// | fewer hops, twice the volume | 5.3 | `apus bench collectives` | `Benchmarks/reports/ted.md` |
///
/// ### Differences
///
/// Capacity is counted over a routing group of the global batch and not over what one rank happens to hold
/// (`training.routing_group`), so that a layout does not change who is dropped. The divergence is a mean over the tokens of the
/// global batch, as the loss is. There is no server yet: inference is `apus generate`.
public enum DeepSpeedMoE {}
