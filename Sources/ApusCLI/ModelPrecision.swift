import ApusNN
import ArgumentParser

/// `--precision` of a model that is not trained.
enum ModelPrecision: String, ExpressibleByArgument, CaseIterable {
    case f32, bf16

    /// As models have it.
    var value: Precision { self == .f32 ? .f32 : .bf16 }
}
