import ApusExperts
import ApusNN
import ApusTensor

extension Block {
    /// The block without what its backward needs: it runs again when backward arrives, with its routing replayed.
    ///
    /// The router's losses count once: the first pass reports them, the second registers their gradients. Pooled losses
    /// are formed outside, so the probability sums are outputs of the block.
    func checkpointed(_ hidden: Hidden, _ context: MoEContext) throws -> Output {
        let trace = context.trace ?? RoutingTrace()
        var first: Output?
        let inputs = [hidden.stream] + (hidden.branch.map { [$0] } ?? [])
        let outer = context.forward.tape
        // The tape keeps the body: a body that kept the tape would keep both for ever when backward never comes.
        let forward = context.forward.on(Tape(backend: outer.backend, isRecording: false))
        let (report, globalTokens, isEvaluation) = (context.report, context.globalTokens, context.isEvaluation)
        let outputs = try outer.checkpoint("block", inputs: inputs, keeping: forward.keptOutputs) {
            tape, inputs in
            let isFirst = first == nil
            let inner = MoEContext(
                forward: forward.on(tape), trace: isFirst ? trace : trace.replay(),
                report: isFirst ? report : nil, globalTokens: globalTokens, isEvaluation: isEvaluation)
            let state = Hidden(stream: inputs[0], branch: inputs.count > 1 ? inputs[1] : nil)
            let output = try self(state, inner)
            if isFirst { first = output }
            let branch = output.hidden.branch.map { [$0] } ?? []
            return [output.hidden.stream] + branch + (output.routing?.probabilitySums.map { [$0] } ?? [])
        }
        guard let plain = first else { preconditionFailure("the checkpointed body ran") }
        let routing = plain.routing.map { routing in
            Routing(
                decision: routing.decision, weights: routing.weights,
                probabilitySums: routing.probabilitySums == nil ? nil : outputs[outputs.count - 1],
                choiceCounts: routing.choiceCounts)
        }
        return Output(hidden: Hidden(stream: outputs[0], branch: outputs[1]), routing: routing)
    }
}
