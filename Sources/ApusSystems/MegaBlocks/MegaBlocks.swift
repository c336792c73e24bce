/// MegaBlocks (Gale, Narayanan, Young, Zaharia: "MegaBlocks: Efficient Sparse Training with Mixture-of-Experts", MLSys 2023,
/// arXiv 2211.15841): what the paper has, and where each of it lives.
///
/// Experts are computed as products with one matrix that is sparse in blocks, so that no token is dropped and no expert's
/// rows are padded to another's. The formulation is a bank among others (`block-sparse`); the grouped bank computes the same
/// from uneven runs of rows, and is the faster of the two in most shapes.
///
/// ### Mechanisms
///
/// | mechanism | section | type | recipe key | test |
/// |---|---|---|---|---|
/// | dropless experts | 3 | `TokenPolicy` | `policy.capacity` left out | `PolicyTests` |
/// | capacity, for comparison | 2.2 | `CapacityOp` | `policy.capacity` | `CapacityTests`, `DeepSpeedGatingTests` |
/// | experts as block-sparse products | 4 | `BlockSparseBank` | `experts.bank` | `BlockSparseBankTests` |
/// | blocks of 128, or others | 5.1.2 | `BlockTopology` | `experts.block_size` | `BlockTopologyTests` |
/// | hybrid blocked CSR-COO, transpose indices | 5.1.3, 5.1.4 | `BlockTopology` |  | `BlockTopologyTests` |
/// | SDD, DSD, DDS and transposed forms | 5.1 | `BlockSparseOp` |  | `BlockSparseTests` |
/// | on a GPU, the topology built there | 5.2 | `CUDABackend` |  | `BlockSparseLaunchTests` |
/// | padded gather and scatter | 5.2 | `RoutedRowsOp` |  | `RoutedRowsTests` |
/// | balance loss | its code | `RouterLosses` | `losses.balance` | `RouterLossTests` |
/// | grouped products of unpadded rows | its later code | `GroupedBank` | `experts.bank` | `GroupedMatMulTests` |
/// | hidden sharding past E ranks | its later code | `ExpertShare` | `layout.expert` | `ExpertShareTests`, `SlicedExpertTests` |
///
/// ### Files, below `Sources`
///
/// | type | place |
/// |---|---|
/// | the banks | `ApusExperts/Experts/BlockSparseBank.swift`, `ApusExperts/Experts/GroupedBank.swift` |
/// | the ops and the topology | `ApusKernels/Ops/BlockSparse` |
/// | their kernels for a GPU | `ApusCUDA/Ops/BlockSparse.swift`, `ApusCUDA/Kernels/block_sparse_sm90a.cu` |
/// | token policies | `ApusExperts/MoEConfiguration.swift`, `ApusKernels/Ops/Capacity.swift` |
/// | the paper's models as presets, `megablocks-moe-xs` and others | `ApusModels/Configuration/Presets.swift` |
///
/// ### Claims
///
/// | claim | section | measured by | report |
/// |---|---|---|---|
/// | block-sparse products reach batched dense ones | 6.3 | `apus bench blocksparse` | `Benchmarks/reports/h100.md` |
/// | a layer is faster than a padded one | 6.1 | `apus bench moe-layer --bank padded:all` | `Benchmarks/reports/h100.md` |
///
/// ### Differences
///
/// Blocks need not be 128; kernels of tensor cores take multiples of 64. Weights of the second product stand as (E, D, F),
/// as every other bank has them, so that a checkpoint does not depend on the bank. The balance loss is each layer's own by
/// default, with `losses.scope` for the pooled one. Rows are not padded in memory: the topology's last block row of an expert
/// ends where its rows do.
public enum MegaBlocks {}
