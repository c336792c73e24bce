public import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import Glibc

// Shape letters: N images of a pass, S tokens of an image, V classes.

/// How well a model tells the classes of images.
public struct ImageEvaluation: Sendable, Equatable {
    /// Summed loss, in nats.
    public let nats: Double
    /// Images whose most probable class is theirs.
    public let correct: Int
    /// Images.
    public let images: Int

    /// Mean loss of an image.
    public var natsPerImage: Double { nats / Double(images) }
    /// Share of the images whose most probable class is theirs.
    public var accuracy: Double { Double(correct) / Double(images) }
}

extension Evaluator {
    /// The loss and the most probable class of each of `images`.
    ///
    /// - Throws: ``DataError/badImages(path:reason:)`` for none, or those of another size or with more classes than the
    ///   model's; ``InferenceError/readsText`` for a model of text; ``InferenceError/unusableLogits(sequence:position:id:value:)``;
    ///   ``TensorError`` when memory runs out.
    public func evaluate(_ images: ImageSet) throws -> ImageEvaluation {
        guard let patches = model.configuration.patches else { throw InferenceError.readsText }
        try images.check(
            height: patches.height, width: patches.width, channels: patches.channels,
            classes: model.configuration.vocabulary)
        let stream = try SequenceStream(images, patch: patches.size, shuffleSeed: nil, part: "evaluated")
        let size = max(1, passTokens / stream.sequenceLength)
        var (nats, correct) = (0.0, 0)
        for first in stride(from: 0, to: images.count, by: size) {
            let range = first..<min(first + size, images.count)
            for (index, logits) in try zip(range, classLogits(stream, range)) {
                if let place = logits.firstIndex(where: { !$0.isFinite }) {
                    throw InferenceError.unusableLogits(
                        sequence: index, position: 0, id: Int32(place), value: logits[place])
                }
                let label = Int(images.label(of: index))
                let largest = logits.max() ?? 0
                let sum = logits.reduce(0.0) { $0 + exp(Double($1 - largest)) }
                nats += log(sum) + Double(largest - logits[label])
                if logits.firstIndex(of: largest) == label { correct += 1 }
            }
        }
        return ImageEvaluation(nats: nats, correct: correct, images: images.count)
    }

    /// The logits (V) of each of some images, (N) in all: those of their class tokens.
    private func classLogits(_ stream: SequenceStream, _ range: Range<Int>) throws -> [[Float]] {
        let (length, classes) = (stream.sequenceLength, model.configuration.vocabulary)
        let inputs = try stream.sequences(range).inputs
        let layout = try TokenLayout.sequences(Array(repeating: length, count: range.count), backend: backend)
        let context = MoEContext(
            forward: ForwardContext(tape: Tape(backend: backend, isRecording: false), layout: layout),
            countsLoads: false, isEvaluation: true)
        let first = (0..<range.count).map { Int32($0 * length) }
        let logits = try backend.floats(
            model.logits(
                tokens: backend.tensor(inputs, Shape(inputs.count)), rows: backend.tensor(first, Shape(first.count)),
                context))
        return (0..<range.count).map { Array(logits[$0 * classes..<($0 + 1) * classes]) }
    }
}
