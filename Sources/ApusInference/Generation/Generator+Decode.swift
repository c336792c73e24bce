import ApusKernels
import ApusModels
import ApusTensor

// Shape letters: S sequences.

extension Generator {
    /// Steps of one token that all of `running` will surely take together; 0 where steps are not recorded, a sequence has
    /// more to read, or layers convolve, whose kept rows are other tensors in each step.
    func steps(_ running: [Continuation]) -> Int {
        guard options.recordsSteps ?? backend.isRecordingCheaper, options.sampling.isGreedy,
            model.configuration.convolution == nil,
            running.count <= options.passTokens, running.allSatisfy({ $0.seen == $0.tokens.count - 1 })
        else { return 0 }
        return running.map { $0.limit - $0.tokens.count }.min() ?? 0
    }

    /// Steps of one token for all of `running`, until one of them ends.
    ///
    /// The host learns a step late what was chosen, so a sequence that ends by its token takes one step too many, which
    /// nobody reads.
    func decode(
        _ states: inout [Continuation], _ running: [Int], _ cache: BlockCache,
        _ onToken: (GeneratedToken) throws -> Void
    ) throws {
        let parts = running.map { states[$0] }
        let run = try DecodeRun(
            model, backend, cache, parts.compactMap(\.sequence), tokens: parts.compactMap(\.tokens.last),
            mostTokens: parts.map(\.keptTokens).max() ?? 0)
        var pending: Tensor?
        for _ in 0..<steps(parts) {
            let choices = try run.step()
            if let last = pending { try deliver(last, to: &states, running, onToken) }
            pending = choices
            if running.contains(where: { states[$0].finish != nil }) { break }
        }
        if let pending { try deliver(pending, to: &states, running, onToken) }
        for index in running where states[index].finish == nil { states[index].seen = states[index].tokens.count - 1 }
    }

    /// Appends what a step has chosen to the sequences that have not ended before it.
    private func deliver(
        _ choices: Tensor, to states: inout [Continuation], _ running: [Int],
        _ onToken: (GeneratedToken) throws -> Void
    ) throws {
        let rows = running.indices.filter { states[running[$0]].finish == nil }
        let places = rows.map { row in
            Sampler.Place(sequence: states[running[row]].prompt.index, position: states[running[row]].tokens.count)
        }
        for (row, id) in zip(rows, try Sampler.ids(choices, rows: rows, places)) {
            try onToken(states[running[row]].append(id, options))
        }
    }
}
