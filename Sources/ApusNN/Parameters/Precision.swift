public import ApusTensor

/// In which types a model's weights, gradients and optimizer state are kept. Products always accumulate in `f32`.
public enum Precision: String, Sendable, CaseIterable {
    /// Everything in `f32`.
    case f32
    /// `bf16` weights and activations; `f32` master weights, moments and accumulated gradients.
    case bf16
    /// `bf16` weights, activations, gradients and moments; `f32` inside the update, stochastic rounding.
    case bf16Pure = "bf16-pure"

    /// Type of weights and activations.
    public var modelType: DType { self == .f32 ? .f32 : .bf16 }
    /// Type of accumulated gradients.
    public var gradientType: DType { self == .bf16Pure ? .bf16 : .f32 }
    /// Type of the optimizer's moments.
    public var momentType: DType { self == .bf16Pure ? .bf16 : .f32 }
    /// Whether the optimizer keeps `f32` weights beside the model's.
    public var hasMaster: Bool { self == .bf16 }

    /// What is in force for parameters of `role`: routers stay in `f32`, whatever the rest.
    public func effective(for role: ParameterRole) -> Precision { role == .router ? .f32 : self }
}
