public import ApusKernels
public import ApusTensor

// Shape letters: n parameters of a rank's shard, t of a tile.

/// The optimizer's step of a program whose gradients are 16 bits wide and whose Adam reads 32: it widens them first,
/// into a buffer of 4n bytes, or tile by tile into one of 4t (DeepSpeed-TED section 4).
///
/// Apus' own step (``AdamW``) reads gradients as they are and needs no buffer. This one exists to show what the tile
/// buys, and what needing none saves: the same weights, to the bit.
public struct TiledUpcast: Sendable {
    /// t; `nil` widens the whole shard at once.
    public let tile: Int?

    /// The paper's tile: 1.8 million parameters, 7.2 MB.
    public static let paperTile = 1_800_000

    /// A step in tiles of `tile` parameters, or at once.
    public init(tile: Int? = TiledUpcast.paperTile) {
        precondition(tile.map { $0 >= 1 } ?? true, "a tile has at least one parameter")
        self.tile = tile
    }

    /// Steps `runs`, whose gradients are `bf16`.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func step(_ runs: [AdamWRun], gradientScale: Tensor, backend: any Backend) throws {
        let counts = runs.map(\.buffers.gradient.count)
        let total = counts.reduce(0, +)
        let buffer = try backend.empty(Shape(min(tile ?? total, total)), .f32, .workspace)
        guard let tile else {
            var end = 0
            let widened = try runs.map { run in
                let count = run.buffers.gradient.count
                defer { end += count }
                return try run.widened(0..<count, into: buffer[end..<end + count], backend)
            }
            return try backend.adamW(widened, gradientScale: gradientScale)
        }
        for run in runs {
            for first in stride(from: 0, to: run.buffers.gradient.count, by: tile) {
                let elements = first..<min(first + tile, run.buffers.gradient.count)
                let part = try run.widened(elements, into: buffer[0..<elements.count], backend)
                try backend.adamW([part], gradientScale: gradientScale)
            }
        }
    }
}

extension AdamWRun {
    /// The step of some elements, with their gradients widened into `buffer`.
    fileprivate func widened(_ elements: Range<Int>, into buffer: Tensor, _ backend: any Backend) throws -> AdamWRun {
        precondition(buffers.gradient.dtype == .bf16, "gradients are \(buffers.gradient.dtype), and need no widening")
        try backend.convert(buffers.gradient[elements], into: buffer)
        return AdamWRun(
            AdamWBuffers(
                weights: buffers.weights[elements], master: buffers.master?[elements], first: buffers.first[elements],
                second: buffers.second[elements], gradient: buffer),
            step, rounding: rounding, firstElement: firstElement + UInt64(elements.lowerBound))
    }
}
