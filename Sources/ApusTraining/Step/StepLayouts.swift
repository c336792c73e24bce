import ApusData
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: S tokens of a sequence, T tokens of a micro-batch.

/// The layouts of micro-batches, which are the same in every step and lie on the device from the first on.
final class StepLayouts {
    private struct Key: Hashable {
        let sequences: Int
        let length: Int
    }

    private let groupSize: Int
    private let balanceSize: Int
    private let backend: any Backend
    private var known: [Key: TokenLayout] = [:]

    init(_ configuration: TrainingConfiguration, backend: any Backend) {
        groupSize = configuration.routingGroup
        balanceSize = configuration.balanceGroup
        self.backend = backend
    }

    /// `sequences` sequences of `length` tokens that begin at token `firstToken` of the global batch. Documents within
    /// them bring positions and first keys of their own.
    func layout(
        sequences: Int, length: Int, firstToken: Int, documents: TokenBatch.Documents?
    ) throws -> TokenLayout {
        let key = Key(sequences: sequences, length: length)
        let layout =
            try known[key]
            ?? TokenLayout.sequences(
                Array(repeating: length, count: sequences), groupSize: groupSize, balanceSize: balanceSize,
                backend: backend)
        known[key] = layout
        guard let documents else { return layout.at(firstGlobalToken: firstToken) }
        return layout.at(
            firstGlobalToken: firstToken, positions: try backend.tensor(documents.positions, Shape(layout.tokenCount)),
            firstKey: try backend.tensor(documents.firstKeys, Shape(layout.tokenCount)))
    }
}
