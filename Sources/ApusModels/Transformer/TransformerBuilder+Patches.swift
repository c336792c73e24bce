import ApusExperts
import ApusNN
import ApusTensor

// Shape letters: D model width, P pixel values of a patch.

extension TransformerBuilder {
    /// The embedding of patches, and of the class token before them.
    mutating func patchEmbed(_ patches: PatchConfiguration) throws -> EmbedStage {
        // Every token is read by the same few weights, so that ranks gain nothing from dividing them. The beginning is that of
        // a layer whose outputs have its inputs' variance.
        let weight = try declare(
            "model.embed_patches.weight", Shape(width, patches.values), cut: .stream,
            .normal(deviation: 1 / Float(patches.values).squareRoot()))
        let bias = try declare(
            "model.embed_patches.bias", Shape(width), decays: false, cut: .stream, .constant(0))
        guard let positions = try positionTable() else { preconditionFailure("patches have learned positions") }
        let embedding = PatchEmbedding(
            projection: Linear(weight: weight, bias: bias), positionTable: positions)
        return EmbedStage(embedding: partition.embedding(embedding))
    }
}
