import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: D model width, Hq heads, N plain and R rotary elements of a query or key head, V elements of a value head, Lq
// and Lk widths of the compressed queries and of the compressed keys and values.

extension TransformerBuilder {
    /// Latent attention under the names of DeepSeek's files. Heads are divided; what compresses for all of them is not.
    mutating func latentAttention(
        _ prefix: String, _ layer: Int, _ latent: LatentConfiguration
    ) throws -> LatentAttention {
        guard let rotary else { preconditionFailure("latent attention was checked to have rotary positions") }
        let heads = configuration.heads
        var compression: LatentAttention.Compression?
        if let rank = latent.queryRank {
            compression = LatentAttention.Compression(
                projection: Linear(
                    weight: try declare(
                        "\(prefix).q_a_proj.weight", Shape(rank, width), layer: layer, cut: .eachHead, initial)),
                norm: try latentNorm("\(prefix).q_a_layernorm.weight", rank, layer))
        }
        let query = try declare(
            "\(prefix).\(latent.queryRank == nil ? "q_proj" : "q_b_proj").weight",
            Shape(heads * latent.keyWidth, latent.queryRank ?? width), layer: layer, cut: .heads(heads, dimension: 0),
            initial)
        let down = try declare(
            "\(prefix).kv_a_proj_with_mqa.weight", Shape(latent.keyValueRank + latent.rotaryWidth, width), layer: layer,
            cut: .eachHead, initial)
        let norm = try latentNorm("\(prefix).kv_a_layernorm.weight", latent.keyValueRank, layer)
        let keyValue = try declare(
            "\(prefix).kv_b_proj.weight",
            Shape(heads * (latent.plainWidth + latent.valueWidth), latent.keyValueRank), layer: layer,
            cut: .heads(heads, dimension: 0), initial)
        let output = try declare(
            "\(prefix).o_proj.weight", Shape(width, heads * latent.valueWidth), layer: layer,
            cut: .heads(heads, dimension: 1), initialOutput)
        let scale = (configuration.yarn?.scoreFactor ?? 1) / Double(latent.keyWidth).squareRoot()
        return LatentAttention(
            layer: layer,
            // Of what is held: a partition may leave some of the heads to other ranks.
            shape: LatentAttention.Shape(
                heads: query.localShape[0] / latent.keyWidth, plainWidth: latent.plainWidth,
                rotaryWidth: latent.rotaryWidth, valueWidth: latent.valueWidth,
                window: configuration.slidingWindow ?? 0, scale: Float(scale)),
            queryCompression: compression, query: Linear(weight: query), keyValueCompression: Linear(weight: down),
            keyValueNorm: norm, keyValue: Linear(weight: keyValue), output: Linear(weight: output), rotary: rotary)
    }

    private mutating func latentNorm(_ name: String, _ width: Int, _ layer: Int) throws -> Norm {
        Norm(
            weight: try declare(
                name, Shape(width), layer: layer, decays: false, cut: .eachHead, .constant(1)),
            epsilon: LatentConfiguration.normEpsilon)
    }
}

extension ModelConfiguration {
    /// Cosines and sines of `positions` positions, for the pairs that the model turns.
    func rotaryTable(positions: Int, theta: Double, _ backend: any Backend) throws -> RotaryTable {
        let pairing = latent?.pairing ?? .halves
        guard let yarn else {
            return try backend.rotaryTable(positions: positions, headWidth: rotaryWidth, theta: theta).pairing(pairing)
        }
        return try yarn.table(positions: positions, width: rotaryWidth, theta: theta, backend).pairing(pairing)
    }
}
