import ApusNN
import ApusTensor

/// The bytes that the caching allocator counts for state: it rounds every buffer up to a size class, the next eighth of
/// a power of two.
public enum AllocatedBytes {
    /// The size class of a request.
    public static func block(of bytes: Int) -> Int {
        guard bytes > 256 else { return 256 }
        // The power of two below the request, or at it when the request is one more than that.
        let power = 1 << (Int.bitWidth - 1 - (bytes - 1).leadingZeroBitCount)
        let step = max(power / 8, 64)
        return (bytes + step - 1) / step * step
    }
}

extension TEDMemory {
    /// ``whole`` as the allocator counts it: for each group a buffer of weights, two or three of state, and one for the
    /// gradients of each of its parts.
    public var allocatedWhole: StateBytes { allocated(isReduced: false) }

    /// ``reduced`` as the allocator counts it.
    public var allocatedReduced: StateBytes { allocated(isReduced: true) }

    private func allocated(isReduced: Bool) -> StateBytes {
        groups.reduce(into: StateBytes(parameters: 0, gradients: 0, optimizerState: 0)) { sum, group in
            let moment = group.ownElements * group.precision.momentType.byteCount
            sum.parameters += AllocatedBytes.block(of: group.elements * group.weightBytes)
            sum.gradients += group.parts.reduce(0) {
                $0 + AllocatedBytes.block(of: $1 / (isReduced ? group.owners : 1) * group.gradientBytes)
            }
            sum.optimizerState +=
                2 * AllocatedBytes.block(of: moment)
                + (group.precision.hasMaster ? AllocatedBytes.block(of: group.ownElements * 4) : 0)
        }
    }
}
