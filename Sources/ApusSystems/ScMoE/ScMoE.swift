/// ScMoE (Cai, Jiang, Qin, Cui, Kim, Huang: "Shortcut-connected Expert Parallelism for Accelerating Mixture-of-Experts", ICML
/// 2025, arXiv 2404.05019): what the paper has, and where each of it lives.
///
/// Experts read an earlier state of their tokens than the rest of the block, so that the exchanges to them and back have
/// computation to hide behind. How a layer is put together is a matter of the model, the same on one rank; who hides what
/// is a matter of order, which changes no value. What stands here is the account of both.
///
/// ### Mechanisms
///
/// | mechanism | part of the paper | type | recipe key, below `model` | test |
/// |---|---|---|---|---|
/// | blocks in pairs | architecture | `Block` | `experts.every` | `ShortcutModelTests` |
/// | shortcut, positions 1 to 3 | architecture | `ShortcutConfiguration`, `RoutedBranch` | `experts.shortcut` | `ShortcutModelTests` |
/// | a norm for each of the two states | architecture | `Block` | `experts.shortcut` | `ShortcutModelTests` |
/// | ScMoE-2, two routed experts | architecture | `TopKRouter` | `experts.choices` | `ShortcutModelTests` |
/// | shared expert | architecture | `MoELayer` | `experts.shared_width` | `ShortcutModelTests` |
/// | direct sum, CG-1, CG-2 | ablations | `SharedCombination`, `ResidualExpert` | `experts.shared_combination` | `ShortcutModelTests` |
/// | a mixture in every block, position 1 | architecture | `Block` | `experts.every` | `ShortcutModelTests` |
/// | DGMoE and its constraint | ablations | `AvoidedExperts` | `experts.shortcut` | `ShortcutModelTests` |
/// | DGMoE-Share | ablations | `TransformerBuilder` | `experts.share` | `ShortcutModelTests` |
/// | exchanges beside computation, forward and backward | overlapping | `RoutedBranch`, `Exchange` |  | `ShortcutOverlapTests` |
/// | where the experts compute | overlapping | ``PairTimes`` |  | `PairTimesTests` |
/// | noisy top-k, softmax after the choice | background | `TopKRouter` | `experts.router` | `SwitchRouterTests` |
/// | generation | inference | `Generator` |  | `GreedyGenerationTests` |
/// | as one rank computes | none | `LayoutVerification` |  | `LayoutTests` |
///
/// `Recipes/scmoe.yaml` is the paper's default, position 2 with one routed expert and CG-1; `Recipes/scmoe-dg.yaml` is
/// DGMoE-Share.
///
/// ### Files, below `Sources`
///
/// | type | place |
/// |---|---|
/// | `ShortcutConfiguration`, `SharedCombination` | `ApusExperts/ShortcutConfiguration.swift` |
/// | `RoutedBranch`: begin, compute, join | `ApusExperts/MoELayer+Shortcut.swift` |
/// | `ResidualExpert`, the learned combinations | `ApusExperts/Experts/ResidualExpert.swift` |
/// | `AvoidedExperts` | `ApusExperts/Routing/AvoidedExperts.swift` |
/// | `Block`, which begins the next block's experts | `ApusModels/Transformer/Stage.swift` |
/// | `TransformerBuilder`, which shares mixtures | `ApusModels/Transformer/TransformerBuilder.swift` |
/// | `Exchange`, start and finish as two nodes | `ApusNN/Exchange/Exchange.swift` |
/// | `BackwardSchedule` | `ApusNN/Autograd/BackwardSchedule.swift` |
/// | the recipe's keys | `ApusTraining/Recipe/SharedExpertReader.swift` |
/// | ``PairTimes`` | `ApusSystems/ScMoE/PairTimes.swift` |
///
/// ### Claims
///
/// | claim | part of the paper | counted by | test |
/// |---|---|---|---|
/// | the windows of the three positions | architecture | ``PairTimes`` | `PairTimesTests` |
/// | a pair takes less than the sum of its parts, both ways | overlapping | a network of fixed delay | `ShortcutOverlapTests` |
/// | exchanges within the window cost nothing | overlapping | ``PairTimes`` | `PairTimesTests` |
/// | DGMoE gives no token an expert twice | ablations | recorded decisions | `ShortcutModelTests` |
///
/// ### Differences
///
/// The experts' place among the operations that hide them is fixed, after those of the block before, where the paper measures
/// and searches; ``PairTimes`` says what a search would choose. Backward mirrors forward. Checkpointed blocks begin their
/// experts themselves, so that only attention and the shared expert hide them. Rows that are not padded announce their counts
/// first, which nothing hides. Routed experts in the host's memory, which the early choice would allow to be fetched in time,
/// are not there.
public enum ScMoE {}
