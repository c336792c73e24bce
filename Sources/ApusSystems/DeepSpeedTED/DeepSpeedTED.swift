/// DeepSpeed-TED (Singh, Ruwase, Awan, Rajbhandari, He, Bhatele: "A Hybrid Tensor-Expert-Data Parallelism Approach to
/// Optimize Mixture-of-Experts Training", ICS 2023, arXiv 2303.06318): what the paper has, and where each of it lives.
///
/// The mechanisms are parts that other systems use too, so they stand below this module. What stands here is the
/// account of them: formulas of what ranks send and hold, and the program that compares these with real runs,
/// `apus bench ted`, whose report is `Benchmarks/reports/ted.md`.
///
/// ### Mechanisms
///
/// | mechanism | section | type | recipe key | test |
/// |---|---|---|---|---|
/// | tensor x expert x data grid | 3 | `Layout` | `layout.tensor`, `.expert`, `.data` | `WorkedExampleTests` |
/// | its communicators | 3 | `ParallelGroups` |  | `ParallelGroupsTests` |
/// | tensor-parallel layers | 3 | `TensorPartition` | `layout.tensor` | `LayoutTests` |
/// | tensor-parallel experts | 3 | `TensorBridge` | `layout.expert_tensor` | `LayoutTests` |
/// | expert parallelism | 3 | `ExpertParallelDispatcher` | `layout.expert` | `LayoutTests` |
/// | ZeRO on both grids | 3.2 | `ZeROStage`, `GradientReduction` | `layout.zero` | `LayoutTests`, `TrafficTests` |
/// | memory of the state | 3.2 | ``TEDMemory``, ``LargestBase`` |  | `MemoryTests` |
/// | tiled optimizer | 4 | ``TiledUpcast``, `AdamW` |  | `TiledUpcastTests` |
/// | duplicates dropped | 5.1 | `PaddedShipment`, `DroplessShipment` | `layout.drop_duplicates` | `TrafficTests` |
/// | drop and sum fused | none | `TensorBridge` | `layout.fuse_reduce_scatter` | `TrafficTests` |
/// | CAC | 5.2 | `KeptOutputs` | `layout.keep_collectives` | `KeptOutputsTests`, `TrafficTests` |
/// | replayed routing | 5.2 | `Block.checkpointed` | `training.checkpointing` | `LayoutTests` |
/// | as one rank computes | none | `LayoutVerification` | `apus verify layout` | `LayoutTests` |
///
/// ### Files, below `Sources`
///
/// | type | place |
/// |---|---|
/// | `Layout`, `ParallelGroups` | `ApusParallel/Topology` |
/// | `TensorPartition` and the layers it makes | `ApusParallel/Layers` |
/// | `ExpertParallelDispatcher`, `TensorBridge`, the shipments | `ApusParallel/Dispatch` |
/// | `ZeROStage`, `GradientReduction`, `collectWeights` | `ApusParallel/Gradients` |
/// | `KeptOutputs`, checkpointing | `ApusNN/Autograd/KeptOutputs.swift`, `Tape+Checkpoint.swift` |
/// | `Block.checkpointed` | `ApusModels/Transformer/Block+Checkpoint.swift` |
/// | `AdamW`, one pass without a buffer | `ApusOptim/AdamW.swift` |
/// | ``TEDTraffic``, ``PassTraffic`` | `ApusSystems/DeepSpeedTED/Traffic` |
/// | ``TEDMemory``, ``TEDState``, ``LargestBase`` | `ApusSystems/DeepSpeedTED/Memory` |
/// | ``TiledUpcast``, ``OptimizerSpike`` | `ApusSystems/DeepSpeedTED/Optimizer` |
/// | ``TEDReport``, which `apus bench ted` prints | `ApusSystems/DeepSpeedTED/Report` |
///
/// ### Claims
///
/// | claim | section | counted by | test |
/// |---|---|---|---|
/// | CAC: six all-to-alls and all-reduces of a block become four | 5.2 | ``TEDTraffic`` | `PaperClaimTests` |
/// | DTD: all-to-all bytes are divided by the tensor degree | 5.1 | ``TEDTraffic`` | `PaperClaimTests` |
/// | both, in all sixteen combinations, on every rank | 5 | ``TEDTraffic``, `CollectiveLedger` | `TrafficTests` |
/// | state is divided by Gt, by Gt Ge and by G | 3.2 | ``TEDMemory`` | `MemoryTests` |
/// | a larger base in the same memory | 3.2 | ``LargestBase`` | `MemoryTests` |
/// | the tile bounds the optimizer's spike | 4 | ``OptimizerSpike`` | `TiledUpcastTests` |
///
/// The paper's models are presets, `ted-6.7b-16` and others (`ApusModels/Configuration/Presets.swift`).
///
/// ### Differences
///
/// The expert degree is any divisor or multiple of E, where the paper has Ge = E. Rows need not be padded: then each
/// rank keeps a part of the tokens, not of every expert's capacity. Experts' gradients are added and not averaged, for
/// the loss is a mean over the tokens of the whole batch. No step of the optimizer needs a wide copy of gradients.
public enum DeepSpeedTED {}
