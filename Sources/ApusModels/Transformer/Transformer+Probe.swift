public import ApusExperts
import ApusKernels
import ApusNN
public import ApusTensor

extension Transformer {
    /// The first stage whose output is not finite for `tokens` (T), by name, or `nil` when all are.
    ///
    /// - Parameter agree: Told what is wrong behind each stage, if anything, and returns what counts: ranks that run the
    ///   stages together leave them together, though one of them alone may have seen it.
    public func firstNonFiniteStage(
        tokens: Tensor, _ context: MoEContext, agree: (String?) throws -> String? = { $0 }
    ) throws -> String? {
        guard let embed, let head else { return nil }
        let backend = context.forward.tape.backend
        func isWrong(_ state: Variable) throws -> Bool { try backend.countNonFinite(state.tensor) > 0 }
        var hidden = try embed(tokens, context.forward)
        if let place = try agree(isWrong(hidden.stream) ? "the embedding" : nil) { return place }
        for block in blocks {
            hidden = try block(hidden, context).hidden
            let own =
                try isWrong(hidden.stream)
                ? "the attention of layer \(block.layer)"
                : hidden.branch.map(isWrong) == true ? "the feed-forward part of layer \(block.layer)" : nil
            if let place = try agree(own) { return place }
        }
        let logits = try head.loss.logits(head.normalized(hidden, on: context.forward.tape).tensor, backend)
        return try agree(backend.countNonFinite(logits) > 0 ? "the logits" : nil)
    }
}
