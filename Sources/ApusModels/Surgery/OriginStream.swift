import ApusKernels
import ApusTensor

/// The bytes of new tensors, piece by piece, from what their origins name.
final class OriginStream {
    private let sources: [StoredWeights]
    private let backend: any Backend
    /// Of tensors that several others are copies of, by source and name.
    private var deviations: [String: Float] = [:]

    init(sources: [StoredWeights], backend: any Backend) {
        self.sources = sources
        self.backend = backend
    }

    /// Calls `body` with the bytes of a new tensor of `count` elements in their order.
    ///
    /// - Throws: ``FileError``, ``TensorError`` when memory runs out; what `body` throws.
    func forEachPiece(
        of origin: TensorOrigin, count: Int, as type: DType, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        switch origin {
        case .runs(let runs):
            for run in runs {
                try sources[run.source].forEachPiece(of: run.name, run.elements, as: type, backend: backend, body)
            }
        case .noisy(let run, let relative, let stream):
            let deviation = try relative * rootMeanSquare(of: run)
            try forEachTensor(count, as: type, body) { elements in
                let piece = try stored(run, elements)
                let noise = try backend.empty(piece.shape, .f32, .workspace)
                try backend.fillRandom(
                    noise, .normal(mean: 0, deviation: deviation), stream: stream, first: UInt64(elements.lowerBound))
                try backend.add(piece, noise, into: piece)
                return piece
            }
        case .average(let first, let second, let share):
            try forEachTensor(count, as: type, body) { elements in
                let sum = try stored(first, elements)
                try backend.scale(sum, by: share, into: sum)
                try backend.addScaled(stored(second, elements), factor: 1 - share, into: sum)
                return sum
            }
        case .drawn(let deviation, let stream):
            try forEachTensor(count, as: type, body) { elements in
                let draws = try backend.empty(Shape(elements.count), .f32, .workspace)
                try backend.fillRandom(
                    draws, .normal(mean: 0, deviation: deviation), stream: stream, first: UInt64(elements.lowerBound))
                return draws
            }
        case .constant(let value):
            try forEachTensor(count, as: type, body) { elements in
                let tensor = try backend.empty(Shape(elements.count), .f32, .workspace)
                try backend.fill(tensor, with: value)
                return tensor
            }
        }
    }

    private func forEachTensor(
        _ count: Int, as type: DType, _ body: (UnsafeRawBufferPointer) throws -> Void,
        _ make: (Range<Int>) throws -> Tensor
    ) throws {
        for elements in StoredWeights.pieces(of: count) {
            let wide = try make(elements)
            guard type != .f32 else {
                try backend.forEachPiece(of: wide, body)
                continue
            }
            let piece = try backend.empty(wide.shape, type, .workspace)
            try backend.convert(wide, into: piece)
            try backend.forEachPiece(of: piece, body)
        }
    }

    /// Some of a run's elements, in `f32`.
    private func stored(_ run: StoredRun, _ elements: Range<Int>) throws -> Tensor {
        let first = run.elements.lowerBound
        return try sources[run.source].piece(
            of: run.name, first + elements.lowerBound..<first + elements.upperBound, as: .f32, backend: backend)
    }

    private func rootMeanSquare(of run: StoredRun) throws -> Float {
        let key = "\(run.source) \(run.name)"
        if let known = deviations[key] { return known }
        let found = try sources[run.source].rootMeanSquare(of: run, backend: backend)
        deviations[key] = found
        return found
    }
}
