// Shape letters: S sequences, Hq query heads, Hk key heads, Lq and Lk tokens of a sequence, H head width.

/// All that a plan of cuDNN depends on: sequences of one length, and how their rows lie in memory.
struct FusedShape: Hashable, Sendable {
    /// Elements between the tokens of the gradients.
    struct Gradients: Hashable, Sendable {
        var out, query, key, value: Int
    }

    /// S.
    var sequences: Int
    /// Hq.
    var queryHeads: Int
    /// Hk.
    var keyHeads: Int
    /// Lq.
    var queryLength: Int
    /// Lk.
    var keyLength: Int
    /// H.
    var width: Int
    var isCausal: Bool
    /// Elements between tokens; heads lie side by side.
    var queryStride, keyStride, valueStride, outStride: Int
    /// Elements between the tokens of the log-sum-exp, which lies by token and then by head.
    var logSumExpStride: Int
    /// For a backward pass.
    var gradients: Gradients?

    /// Bytes that every address is a multiple of.
    static let alignment = 16

    /// For names of files, and messages.
    var signature: String {
        let strides = [queryStride, keyStride, valueStride, outStride, logSumExpStride]
        let back = gradients.map { [$0.out, $0.query, $0.key, $0.value] } ?? []
        return "\(sequences) x (\(queryLength), \(queryHeads), \(width)) over (\(keyLength), \(keyHeads), \(width))"
            + "\(isCausal ? " causal" : "") by " + (strides + back).map { "\($0)" }.joined(separator: " ")
    }
}

/// Layouts of the graph's tensors, by sequence and head first.
extension FusedShape {
    typealias Layout = AttentionGraph.Layout

    func queryRows(_ stride: Int) -> Layout { rows(queryHeads, queryLength, stride) }
    func keyRows(_ stride: Int) -> Layout { rows(keyHeads, keyLength, stride) }

    private func rows(_ heads: Int, _ length: Int, _ stride: Int) -> Layout {
        Layout([sequences, heads, length, width], strides: [length * stride, width, stride, 1])
    }

    var scores: Layout { Layout(dense: sequences, queryHeads, queryLength, keyLength) }
    /// The scores' transpose, in the scores' memory.
    var scoresByKey: Layout { scores.transposed }
    /// One number for each query and head.
    var column: Layout { Layout(dense: sequences, queryHeads, queryLength, 1) }
    var logSumExpColumn: Layout {
        Layout(
            [sequences, queryHeads, queryLength, 1],
            strides: [queryLength * logSumExpStride, 1, logSumExpStride, 1])
    }
    var denseQueryRows: Layout { Layout(dense: sequences, queryHeads, queryLength, width) }
    var keyRowsOfEachHead: Layout { Layout(dense: sequences, queryHeads, keyLength, width) }
    var lengths: Layout { Layout(dense: sequences, 1, 1, 1) }
}

/// The backward pass, its memory, and how it is cut to bound that.
extension FusedShape {
    /// Keys of one of the kernel's tiles.
    private static let tile = 128

    /// Whether the kernel is told how long the sequences are: up to cuDNN 9.15 its backward reads past a last tile that is
    /// not full, unless it is.
    var needsLengths: Bool { keyLength % FusedShape.tile != 0 }

    /// About the bytes that a deterministic backward pass needs: the gradients of all scores, and with shared key heads
    /// those of keys and values for each query head.
    var deterministicBytes: Int {
        func rounded(_ length: Int) -> Int { ceilDivide(length, FusedShape.tile) * FusedShape.tile }
        let shared = queryHeads == keyHeads ? 0 : 2 * 2 * keyLength * width
        return sequences * queryHeads * (2 * rounded(queryLength) * rounded(keyLength) + shared)
    }

    /// The largest equal part that a deterministic backward pass can do at a time within a bound: some of the sequences, or
    /// some of the heads of one. `nil` where not even one head fits, or the parts' addresses would not be aligned.
    func part(within bytes: Int) -> FusedShape? {
        var part = self
        for count in divisors(of: sequences) {
            part.sequences = count
            // The log-sum-exp of a part begins at its first sequence.
            let isAligned = count == sequences || count * queryLength * queryHeads * 4 % FusedShape.alignment == 0
            if part.deterministicBytes <= bytes, isAligned { return part }
        }
        for count in divisors(of: keyHeads) {
            part.keyHeads = count
            part.queryHeads = queryHeads / keyHeads * count
            // The log-sum-exp of a part begins at its first head.
            if part.deterministicBytes <= bytes, part.queryHeads * 4 % FusedShape.alignment == 0 { return part }
        }
        return nil
    }

    /// Where each part like `part` begins, in order.
    func parts(like part: FusedShape) -> [(sequence: Int, queryHead: Int, keyHead: Int)] {
        stride(from: 0, to: sequences, by: part.sequences).flatMap { sequence in
            stride(from: 0, to: keyHeads, by: part.keyHeads).map { head in
                (sequence, head * (queryHeads / keyHeads), head)
            }
        }
    }

    /// From the largest.
    private func divisors(of count: Int) -> [Int] { (1...count).filter { count % $0 == 0 }.reversed() }
}
