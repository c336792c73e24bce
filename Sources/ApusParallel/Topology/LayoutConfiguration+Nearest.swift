extension LayoutConfiguration {
    /// The layout that fits and differs least from this one: with as many ranks if there is one, else with the most
    /// that there is one for; then by how far tensor and expert degree move.
    ///
    /// `nil` when the work does not even fit one rank.
    func nearestLayout(ranks: Int, for workload: Workload?) -> Layout? {
        guard fitted(ranks: 1, tensor: 1, workload) != nil else { return nil }
        let most = min(max(ranks, 1), Self.mostRanks)
        // One tensor rank and whole experts fit any number of ranks, but for the batch.
        for count in workload?.worlds(upTo: most) ?? [most] {
            let layouts = divisors(of: count).compactMap { fitted(ranks: count, tensor: $0, workload) }
            if let nearest = layouts.min(by: { distance(to: $0) < distance(to: $1) }) { return nearest }
        }
        return nil
    }

    /// The layout of `ranks` ranks and this tensor degree whose expert degrees are nearest to the wanted ones; `nil`
    /// when none of them fits.
    private func fitted(ranks: Int, tensor: Int, _ workload: Workload?) -> Layout? {
        var candidate = self
        candidate.tensor = tensor
        candidate.data = nil
        let degrees = divisors(of: expertTensor ? ranks / tensor : ranks)
        switch expert {
        case .uniform(let wanted):
            let best = byDistance(degrees, from: wanted).first { degree in
                candidate.expert = .uniform(degree)
                return candidate.flaw(ranks: ranks, workload) == nil
            }
            guard best != nil else { return nil }
        case .perLayer(let wanted):
            // A layer's degree is fit or not whatever the others are: each is chosen for itself.
            let layers = workload?.layers ?? []
            let count = workload == nil ? max(wanted.count, 1) : layers.count
            var memory: [LayerChoice: Int?] = [:]
            var chosen: [Int] = []
            for layer in 0..<count {
                let choice = LayerChoice(
                    wanted: layer < wanted.count ? wanted[layer] : wanted.last ?? 1,
                    part: workload == nil ? nil : layers[layer])
                if memory[choice] == nil {
                    memory[choice] = .some(
                        byDistance(degrees, from: choice.wanted).first { degree in
                            candidate.expert = .perLayer([degree])
                            return candidate.flaw(ranks: ranks, choice.workload(like: workload)) == nil
                        })
                }
                guard case .some(.some(let degree)) = memory[choice] else { return nil }
                chosen.append(degree)
            }
            candidate.expert = .perLayer(chosen)
            guard candidate.flaw(ranks: ranks, workload) == nil else { return nil }
        }
        return Layout(
            ranks: ranks, tensor: tensor, expert: candidate.expert, expertTensor: expertTensor, order: order)
    }

    private func byDistance(_ degrees: [Int], from wanted: Int) -> [Int] {
        degrees.sorted { (ratio($0, wanted), $0) < (ratio($1, wanted), $1) }
    }

    /// How far the degrees of `layout` are from the wanted ones; the tensor degree counts twice, for it decides where
    /// the memory of everything but the experts goes.
    private func distance(to layout: Layout) -> (Double, Int) {
        let moved: Double
        switch (expert, layout.expert) {
        case (.uniform(let wanted), .uniform(let degree)): moved = ratio(degree, wanted)
        case (.perLayer(let wanted), .perLayer(let degrees)):
            let ratios = zip(degrees, wanted).map { ratio($0, $1) }
            moved = ratios.isEmpty ? 1 : ratios.reduce(0, +) / Double(ratios.count)
        default: preconditionFailure("the nearest layout lists degrees as this one does")
        }
        return (2 * ratio(layout.tensor, tensor) + moved, layout.tensor)
    }
}

/// All that the choice of one layer's expert degree depends on, for given ranks and tensor degree.
private struct LayerChoice: Hashable {
    let wanted: Int
    let part: Workload.FeedForward?

    /// The workload with this layer alone.
    func workload(like workload: Workload?) -> Workload? {
        guard let workload, let part else { return nil }
        return Workload(
            heads: workload.heads, keyValueHeads: workload.keyValueHeads, vocabulary: workload.vocabulary,
            layers: [part], batch: workload.batch)
    }
}

extension Workload {
    /// Sizes of worlds that a layout might be found for, descending; `nil` when there is no batch to bound them.
    ///
    /// The tensor degree divides heads and widths, the data degree the batch's groups.
    fileprivate func worlds(upTo most: Int) -> [Int]? {
        guard let batch else { return nil }
        let tensors = divisors(of: layers.flatMap(\.denseWidths).reduce(gcd(heads, keyValueHeads), gcd))
        let worlds = divisors(of: batch.sequences / batch.group).flatMap { data in
            tensors.map { $0 * data }.filter { $0 <= most }
        }
        return Set(worlds).sorted(by: >)
    }
}

private func gcd(_ first: Int, _ second: Int) -> Int { second == 0 ? first : gcd(second, first % second) }

/// How many times as large the one is as the other, at least 1.
private func ratio(_ first: Int, _ second: Int) -> Double {
    let (first, second) = (Double(max(first, 1)), Double(max(second, 1)))
    return max(first / second, second / first)
}

private func divisors(of count: Int) -> [Int] {
    var low: [Int] = []
    var high: [Int] = []
    var divisor = 1
    while divisor * divisor <= count {
        if count.isMultiple(of: divisor) {
            low.append(divisor)
            if divisor * divisor != count { high.append(count / divisor) }
        }
        divisor += 1
    }
    return low + high.reversed()
}
