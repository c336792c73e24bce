// Shape letters: F feed-forward width, E experts, V vocabulary.

extension LayoutConfiguration {
    /// What keeps a layout from working: the first that is found.
    struct Flaw: Equatable {
        let key: String
        let reason: String
        var alternative: String?

        init(_ key: String, _ reason: String, _ alternative: String? = nil) {
            self.key = key
            self.reason = reason
            self.alternative = alternative
        }
    }

    /// The largest world that there can be.
    static let mostRanks = 1 << 16

    /// Why `ranks` ranks cannot have this layout for `workload`; `nil` when they can.
    func flaw(ranks: Int, _ workload: Workload?) -> Flaw? {
        if let flaw = gridFlaw(ranks: ranks) ?? degreeCountFlaw(workload) ?? degreeFlaw(ranks: ranks) { return flaw }
        guard let workload else { return nil }
        return tensorFlaw(workload) ?? expertFlaw(workload, ranks: ranks)
            ?? batchFlaw(workload.batch, data: ranks / tensor)
    }

    // MARK: The grid

    /// `G = Gt Gd`.
    private func gridFlaw(ranks: Int) -> Flaw? {
        guard (1...Self.mostRanks).contains(ranks) else {
            return Flaw("ranks", "is \(ranks), and a world has 1 to \(Self.mostRanks) ranks")
        }
        guard tensor >= 1, ranks.isMultiple(of: tensor) else {
            return Flaw("layout.tensor", "is \(tensor), which does not divide \(ranks) ranks")
        }
        guard let data, data != ranks / tensor else { return nil }
        let (needed, overflow) = tensor.multipliedReportingOverflow(by: data)
        return Flaw(
            "layout.data", "is \(data), which with tensor \(tensor) does not make the \(ranks) ranks of this run",
            data >= 1 && !overflow && needed <= Self.mostRanks ? "start \(needed) ranks" : nil)
    }

    /// A degree for each layer, when they are listed.
    private func degreeCountFlaw(_ workload: Workload?) -> Flaw? {
        guard case .perLayer(let degrees) = expert else { return nil }
        guard let workload else {
            return degrees.isEmpty ? Flaw("layout.expert", "is an empty list, and each layer needs a degree") : nil
        }
        guard degrees.count != workload.layers.count else { return nil }
        return Flaw("layout.expert", "lists \(degrees.count) degrees for a model of \(workload.layers.count) layers")
    }

    /// `Gd % Ge == 0`, or `G % Ge == 0` where experts are whole.
    private func degreeFlaw(ranks: Int) -> Flaw? {
        let line = expertTensor ? ranks / tensor : ranks
        let what = expertTensor ? "data degree \(line)" : "\(line) ranks that expert groups are cut from"
        for (layer, degree) in listedDegrees where degree < 1 || !line.isMultiple(of: degree) {
            return Flaw("layout.expert", "is \(degree)\(inLayer(layer)), which does not divide the \(what)")
        }
        return nil
    }

    // MARK: The model

    /// Heads, widths and vocabulary that a tensor group shares.
    ///
    /// Key and value heads are divided like query heads, not repeated: a head on two ranks would need its gradient
    /// summed over part of a tensor group. The vocabulary may be divided unevenly.
    private func tensorFlaw(_ workload: Workload) -> Flaw? {
        let heads = [("query heads", workload.heads), ("key and value heads", workload.keyValueHeads)]
        for (what, count) in heads where !count.isMultiple(of: tensor) {
            return Flaw("layout.tensor", "is \(tensor), which does not divide the model's \(count) \(what)")
        }
        if workload.vocabulary < tensor {
            return Flaw(
                "layout.tensor", "is \(tensor), more than the model's \(workload.vocabulary) vocabulary entries")
        }
        for (layer, part) in workload.layers.enumerated() {
            for width in part.denseWidths where !width.isMultiple(of: tensor) {
                return Flaw(
                    "layout.tensor",
                    "is \(tensor), which does not divide the width \(width) of layer \(layer)'s dense part")
            }
        }
        return nil
    }

    /// `E % Ge == 0`; with more ranks than experts `Ge % E == 0`, and `Ge / E` slices of F.
    private func expertFlaw(_ workload: Workload, ranks: Int) -> Flaw? {
        if case .uniform(let degree) = expert, degree > 1, !workload.hasExperts {
            return Flaw("layout.expert", "is \(degree), and no layer of the model has experts")
        }
        for (layer, part) in workload.layers.enumerated() {
            let (degree, isListed) = degree(layer: layer)
            let what = "is \(degree)\(inLayer(isListed ? layer : nil))"
            guard case .experts(let experts, let width, _) = part else {
                if isListed && degree > 1 { return Flaw("layout.expert", "\(what), which has no experts") }
                continue
            }
            guard experts.isMultiple(of: degree) || degree.isMultiple(of: experts) else {
                return Flaw(
                    "layout.expert",
                    "\(what), which neither divides the \(experts) experts of layer \(layer) nor is a multiple of them")
            }
            let slices = max(degree / experts, 1)
            guard width.isMultiple(of: slices * expertParts) else {
                let parts = expertParts == 1 ? "\(slices)" : "\(slices) x tensor \(tensor)"
                return slices == 1
                    ? Flaw(
                        "layout.tensor",
                        "is \(tensor), which does not divide the width \(width) of layer \(layer)'s experts",
                        wholeExperts(ranks: ranks, workload))
                    : Flaw(
                        "layout.expert",
                        "\(what): \(parts) slices of each expert do not divide the width \(width) of layer \(layer)'s",
                        wholeExperts(ranks: ranks, workload))
            }
        }
        return nil
    }

    /// Ranks of a tensor group that share an expert's matrix.
    private var expertParts: Int { expertTensor ? tensor : 1 }

    /// The advice to leave experts whole, where that is all it takes.
    private func wholeExperts(ranks: Int, _ workload: Workload) -> String? {
        guard expertTensor, tensor > 1 else { return nil }
        var other = self
        other.expertTensor = false
        return other.flaw(ranks: ranks, workload) == nil ? "set layout.expert_tensor to false" : nil
    }

    // MARK: The batch

    /// Every data rank has the same number of whole groups of sequences, and cuts them into equal micro-batches.
    private func batchFlaw(_ batch: Workload.Batch?, data: Int) -> Flaw? {
        guard let batch else { return nil }
        let unit = data * batch.group
        guard batch.sequences >= 1, batch.sequences.isMultiple(of: unit) else {
            let groups = batch.group == 1 ? "sequences" : "groups of \(batch.group) sequences"
            return Flaw(
                "training.batch",
                "is \(batch.sequences), which does not give \(data) data ranks equally many \(groups)",
                "use training.batch \(nearest(multipleOf: unit, to: batch.sequences))")
        }
        let share = batch.sequences / data
        let micro = min(batch.microBatch, share)
        guard micro >= 1, share.isMultiple(of: micro), micro.isMultiple(of: batch.group) else {
            return Flaw(
                "training.micro_batch",
                "is \(batch.microBatch), which does not cut the \(share) sequences of each data rank into equal parts"
                    + (batch.group == 1 ? "" : " of whole groups of \(batch.group)"),
                "use training.micro_batch \(batch.nearestMicroBatch(share: share))")
        }
        return nil
    }

    // MARK: Degrees

    private func degree(layer: Int) -> (Int, isListed: Bool) {
        switch expert {
        case .uniform(let degree): (degree, false)
        case .perLayer(let degrees): (degrees[layer], true)
        }
    }

    private var listedDegrees: [(layer: Int?, degree: Int)] {
        switch expert {
        case .uniform(let degree): [(nil, degree)]
        case .perLayer(let degrees): degrees.enumerated().map { ($0.offset, $0.element) }
        }
    }

    private func inLayer(_ layer: Int?) -> String { layer.map { " in layer \($0)" } ?? "" }
}

extension Workload.FeedForward {
    /// Widths that are divided by the tensor degree alone.
    var denseWidths: [Int] {
        switch self {
        case .dense(let width): [width]
        case .experts(_, _, let dense): dense
        }
    }
}

extension Workload.Batch {
    /// The micro-batch nearest to the wanted one that cuts `share` sequences into equal parts of whole groups.
    fileprivate func nearestMicroBatch(share: Int) -> Int {
        stride(from: group, through: share, by: group).filter(share.isMultiple).min {
            (abs($0 - microBatch), $0) < (abs($1 - microBatch), $1)
        } ?? share
    }
}

/// The positive multiple of `unit` nearest to `value`, the smaller of two.
private func nearest(multipleOf unit: Int, to value: Int) -> Int {
    let below = max(value, 0) / unit * unit
    return below > 0 && value - below <= unit - (value - below) ? below : below + unit
}
