import ApusExperts
import ApusNN
import ApusTensor

extension Block {
    /// The block without what its backward needs: it runs again when backward arrives, with its routing replayed.
    ///
    /// The router's losses count once: the first pass reports them, the second registers their gradients. Pooled losses
    /// are formed outside, so the probability sums are outputs of the block. Experts that read an earlier state are begun
    /// inside, not ahead: nothing else outside would be known to the second run.
    func checkpointed(_ hidden: Hidden, _ context: MoEContext) throws -> Output {
        let trace = context.trace ?? RoutingTrace()
        var first: Output?
        precondition(hidden.routed == nil, "what a checkpointed block reads is among its inputs")
        let outer = context.forward.tape
        // The tape keeps the body: a body that kept the tape would keep both for ever when backward never comes.
        let forward = context.forward.on(Tape(backend: outer.backend, isRecording: false))
        let (report, globalTokens, isEvaluation) = (context.report, context.globalTokens, context.isEvaluation)
        let outputs = try outer.checkpoint("block", inputs: hidden.variables, keeping: forward.keptOutputs) {
            tape, inputs in
            let isFirst = first == nil
            let inner = MoEContext(
                forward: forward.on(tape), trace: isFirst ? trace : trace.replay(),
                report: isFirst ? report : nil, globalTokens: globalTokens, isEvaluation: isEvaluation)
            let output = try self(hidden.replacing(inputs), inner)
            if isFirst { first = output }
            return output.hidden.variables + (output.routing?.probabilitySums.map { [$0] } ?? [])
        }
        guard let plain = first else { preconditionFailure("the checkpointed body ran") }
        let routing = plain.routing.map { routing in
            Routing(
                decision: routing.decision, weights: routing.weights,
                probabilitySums: routing.probabilitySums == nil ? nil : outputs[outputs.count - 1],
                choiceCounts: routing.choiceCounts)
        }
        let count = plain.hidden.variables.count
        return Output(hidden: plain.hidden.replacing(Array(outputs[..<count])), routing: routing)
    }
}
