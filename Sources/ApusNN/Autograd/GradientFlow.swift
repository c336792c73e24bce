public import ApusKernels
public import ApusTensor

/// What an adjoint sees while it runs: the gradients of its node's outputs, and the way to its inputs' gradients.
public struct GradientFlow {
    let tape: Tape
    let outputs: [Int]

    /// Where ops run.
    public var backend: any Backend { tape.backend }

    /// The gradient of the node's output `index`, or `nil` when nothing flowed into it.
    public func output(_ index: Int = 0) -> Tensor? { tape.gradients[outputs[index]] }

    /// Takes the gradient of output `index` out of the flow, so that the adjoint may overwrite or pass on its storage.
    public func takeOutput(_ index: Int = 0) -> Tensor? { tape.gradients[outputs[index]].take() }

    /// Adds `gradient` to what has arrived at `input`. The tensor may be handed on as it is: do not write it later.
    public func accumulate(_ gradient: Tensor, into input: Variable) throws {
        guard let slot = input.slot else { return }
        precondition(gradient.shape == input.shape, "a gradient of \(gradient.shape) for a value of \(input.shape)")
        try tape.accumulate(gradient, into: slot)
    }

    /// Lets a kernel write straight into the gradient of `input`.
    ///
    /// `write(target, adds)` must add to the target when `adds` is true and overwrite it otherwise. It is not called
    /// when `input` needs no gradient.
    public func accumulate(into input: Variable, _ write: (_ target: Tensor, _ adds: Bool) throws -> Void) throws {
        guard let slot = input.slot else { return }
        if let present = tape.gradients[slot].take() {
            let owned = try tape.backend.exclusive(present)
            try write(owned, true)
            tape.gradients[slot] = owned
        } else {
            let target = try tape.backend.allocator.empty(input.shape, input.dtype, .activations)
            try write(target, false)
            tape.gradients[slot] = target
        }
    }
}

extension Backend {
    /// `left + right`, in the storage of whichever nobody else holds, in a new one when both are shared.
    func sumOfGradients(_ left: consuming Tensor, _ right: consuming Tensor) throws -> Tensor {
        var target = try arrived(consume left)
        var source = try arrived(consume right)
        if !target.isSoleOwnerOfStorage() && source.isSoleOwnerOfStorage() { swap(&target, &source) }
        if !target.isSoleOwnerOfStorage() {
            let sum = try allocator.empty(target.shape, target.dtype, .activations)
            try add(target, source, into: sum)
            return sum
        }
        try add(target, source, into: target)
        return target
    }

    /// `tensor` itself when nobody else holds its storage, else a copy: what may be written in place.
    public func exclusive(_ tensor: consuming Tensor) throws -> Tensor {
        var owned = try arrived(consume tensor)
        if owned.isSoleOwnerOfStorage() { return owned }
        let copy = try allocator.empty(owned.shape, owned.dtype, .activations)
        try self.copy(owned, into: copy)
        return copy
    }
}
