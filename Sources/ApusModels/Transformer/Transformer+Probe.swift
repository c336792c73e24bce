public import ApusExperts
import ApusKernels
import ApusNN
public import ApusTensor

extension Transformer {
    /// The first stage whose output is not finite for `tokens` (T), by name, or `nil` when all are.
    public func firstNonFiniteStage(tokens: Tensor, _ context: MoEContext) throws -> String? {
        guard let embed, let head else { return nil }
        let backend = context.forward.tape.backend
        var hidden = try embed(tokens, context.forward)
        if try backend.countNonFinite(hidden.stream.tensor) > 0 { return "the embedding" }
        for block in blocks {
            hidden = try block(hidden, context).hidden
            if try backend.countNonFinite(hidden.stream.tensor) > 0 { return "the attention of layer \(block.layer)" }
            if let branch = hidden.branch, try backend.countNonFinite(branch.tensor) > 0 {
                return "the feed-forward part of layer \(block.layer)"
            }
        }
        let logits = try head.loss.logits(head.normalized(hidden, on: context.forward.tape).tensor, backend)
        return try backend.countNonFinite(logits) > 0 ? "the logits" : nil
    }
}
