public import ApusKernels
import ApusTensor

extension RoutingTrace {
    /// A trace that replays on `target` what this one has recorded on `source`. Waits for the source.
    ///
    /// - Throws: ``TensorError``; what a device throws.
    public func replay(from source: any Backend, on target: any Backend) throws -> RoutingTrace {
        try replay { decision in
            try decision.mapTensors { try target.tensor(source.array($0, of: Int32.self), $0.shape) }
        }
    }
}

extension RoutingDecision {
    /// The same decision with each of its tensors replaced.
    fileprivate func mapTensors(_ body: (Tensor) throws -> Tensor) rethrows -> RoutingDecision {
        RoutingDecision(
            ids: try body(ids), kept: try body(kept), experts: experts, capacities: capacities, isPadded: isPadded,
            permutation: RoutingPermutation(
                slotToRow: try body(permutation.slotToRow), rowToSlot: try body(permutation.rowToSlot),
                rowToToken: try body(permutation.rowToToken), counts: try body(permutation.counts),
                offsets: try body(permutation.offsets)), capacitiesVary: capacitiesVary)
    }
}
