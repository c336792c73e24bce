import ApusKernels
public import ApusTensor

/// The gradients of neighbouring parameters: in memory from the first time that one is asked for until they are released.
///
/// 1. A part ends where a layer does. Backward runs from the last layer to the first, so it takes memory for the gradients
///    of a layer while it gives back that of the layer's activations; a forward pass has no gradients beside it at all.
/// 2. The first product that arrives at a parameter's gradient is written, not added: nothing is zeroed for it.
/// 3. It is also the bucket in which ranks with the same parameters add their gradients. Where they divide the sums among
///    them (ZeRO), this rank's share takes the place of the whole: ``keepOwn(_:)``.
public final class GradientPart {
    /// The elements of the group's flat buffers that it belongs to, padding included.
    public let range: Range<Int>
    /// Those of ``range`` whose sum over the ranks with the same parameters is this rank's.
    public let ownRange: Range<Int>
    /// Type of the gradients.
    public let dtype: DType
    /// The parameters of the model that are declared before the part's first: backward arrives at that one last.
    public let firstParameter: Int
    private let backend: any Backend
    /// First element of each parameter in the part, and the end of the last.
    private let bounds: [Int]
    /// Whether each parameter's gradient was written since the last release.
    private var isWritten: [Bool]
    private var buffer: Tensor?
    private var own: Tensor?

    /// The part of the parameters of `counts` elements that begin at element `first` of the flat buffers.
    init(
        first: Int, counts: [Int], firstParameter: Int, share: StateShare, _ dtype: DType, backend: any Backend
    ) {
        bounds = counts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
        range = first..<first + share.padded(bounds[counts.count])
        ownRange = share.part(of: range)
        isWritten = Array(repeating: false, count: counts.count)
        self.firstParameter = firstParameter
        self.dtype = dtype
        self.backend = backend
    }

    /// The gradients, dense; zero where nothing has arrived, and in the padding.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func gradients() throws -> Tensor {
        _ = try complete(0..<bounds[bounds.count - 1])
        return try memory()
    }

    /// The gradients of ``ownRange``: those that were kept, or their place in ``gradients()``.
    ///
    /// - Throws: as ``gradients()``.
    public func ownGradients() throws -> Tensor {
        if let own { return own }
        return try gradients()[ownRange.lowerBound - range.lowerBound..<ownRange.upperBound - range.lowerBound]
    }

    /// The elements of the group whose gradients are here: this rank's share once that is all that was kept.
    public var heldRange: Range<Int> { own == nil ? range : ownRange }

    /// The gradients of ``heldRange``.
    ///
    /// - Throws: as ``gradients()``.
    public func heldGradients() throws -> Tensor { try own ?? gradients() }

    /// Puts `gradients`, the sums of ``ownRange`` over all ranks, in the place of the whole part, whose memory is free for
    /// the next backward; adds them to those that were kept before.
    ///
    /// - Throws: what the addition throws.
    public func keepOwn(_ gradients: Tensor) throws {
        precondition(gradients.count == ownRange.count)
        if let own {
            try backend.addScaled(gradients, factor: 1, into: own)
        } else {
            own = gradients
        }
    }

    /// The gradients of some elements of the part, parameters as a whole; zero where nothing has arrived.
    func complete(_ elements: Range<Int>) throws -> Tensor {
        let buffer = try memory()
        for parameter in parameters(elements) where !isWritten[parameter] {
            try backend.fill(buffer[bounds[parameter]..<bounds[parameter + 1]], with: 0)
            isWritten[parameter] = true
        }
        return buffer[elements]
    }

    /// The same, to be written by whoever asks, and whether there is something to add to. Without, all must be written.
    func target(_ elements: Range<Int>) throws -> (gradient: Tensor, adds: Bool) {
        let parameters = parameters(elements)
        guard parameters.allSatisfy({ !isWritten[$0] }) else { return (try complete(elements), true) }
        let buffer = try memory()
        for parameter in parameters { isWritten[parameter] = true }
        return (buffer[elements], false)
    }

    /// Gives the memory back, but for what was kept.
    public func releaseWhole() {
        buffer = nil
        for parameter in isWritten.indices { isWritten[parameter] = false }
    }

    /// Gives the memory back.
    public func release() {
        releaseWhole()
        own = nil
    }

    private func memory() throws -> Tensor {
        if let buffer { return buffer }
        let empty = try backend.empty(Shape(range.count), dtype, .gradients)
        buffer = empty
        let end = bounds[bounds.count - 1]
        if end < range.count { try backend.fill(empty[end..<range.count], with: 0) }
        return empty
    }

    private func parameters(_ elements: Range<Int>) -> Range<Int> {
        guard let first = bounds.firstIndex(where: { $0 >= elements.lowerBound }),
            let last = bounds.firstIndex(where: { $0 >= elements.upperBound }),
            bounds[first] == elements.lowerBound, bounds[last] == elements.upperBound
        else { preconditionFailure("elements \(elements) are no whole parameters") }
        return first..<last
    }
}

extension GradientPart {
    /// Elements below which layers share a part: the gain would be less than the cost of one more buffer.
    static let fewest = 1 << 22
    /// Parts of a group, about; an optimizer's launch then takes the parts of all groups.
    static let most = 8

    /// Cuts `parameters` where layers end.
    static func cuts(of parameters: [Parameter]) -> [Range<Int>] {
        let least = max(fewest, parameters.reduce(0) { $0 + $1.localShape.count } / most)
        var cuts: [Range<Int>] = []
        var (begin, count) = (0, 0)
        for (index, parameter) in parameters.enumerated() {
            count += parameter.localShape.count
            let next = index + 1 < parameters.count ? parameters[index + 1] : nil
            guard next == nil || (count >= least && next?.layer != parameter.layer) else { continue }
            cuts.append(begin..<index + 1)
            (begin, count) = (index + 1, 0)
        }
        return cuts
    }
}
