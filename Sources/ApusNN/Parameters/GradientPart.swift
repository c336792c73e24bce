import ApusKernels
public import ApusTensor

/// The gradients of neighbouring parameters: in memory from the first time that one is asked for until they are released.
///
/// 1. A part ends where a layer does. Backward runs from the last layer to the first, so it takes memory for the gradients
///    of a layer while it gives back that of the layer's activations; a forward pass has no gradients beside it at all.
/// 2. The first product that arrives at a parameter's gradient is written, not added: nothing is zeroed for it.
public final class GradientPart {
    /// The elements of the group's flat buffers that it belongs to.
    public let range: Range<Int>
    /// Type of the gradients.
    public let dtype: DType
    private let backend: any Backend
    /// First element of each parameter in the part, and the part's end.
    private let bounds: [Int]
    /// Whether each parameter's gradient was written since the last release.
    private var isWritten: [Bool]
    private var buffer: Tensor?

    /// The part of the parameters of `counts` elements that begin at element `first` of the flat buffers.
    init(first: Int, counts: [Int], _ dtype: DType, backend: any Backend) {
        bounds = counts.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
        range = first..<first + bounds[counts.count]
        isWritten = Array(repeating: false, count: counts.count)
        self.dtype = dtype
        self.backend = backend
    }

    /// The gradients, dense; zero where nothing has arrived.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func gradients() throws -> Tensor { try complete(0..<range.count) }

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

    /// Gives the memory back.
    public func release() {
        buffer = nil
        for parameter in isWritten.indices { isWritten[parameter] = false }
    }

    private func memory() throws -> Tensor {
        if let buffer { return buffer }
        let empty = try backend.empty(Shape(range.count), dtype, .gradients)
        buffer = empty
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

    /// Cuts the flat buffers of `parameters` where layers end.
    static func parts(of parameters: [Parameter], _ dtype: DType, backend: any Backend) -> [GradientPart] {
        let least = max(fewest, parameters.reduce(0) { $0 + $1.localShape.count } / most)
        var parts: [GradientPart] = []
        var (begin, counts) = (0, [Int]())
        for (index, parameter) in parameters.enumerated() {
            counts.append(parameter.localShape.count)
            let count = counts.reduce(0, +)
            let next = index + 1 < parameters.count ? parameters[index + 1] : nil
            guard next == nil || (count >= least && next?.layer != parameter.layer) else { continue }
            parts.append(GradientPart(first: begin, counts: counts, dtype, backend: backend))
            (begin, counts) = (begin + count, [])
        }
        return parts
    }
}
