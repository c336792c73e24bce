import ApusCollectives
import ApusNN
import ApusParallel
import ApusTensor

extension TEDReport {
    /// The report's sections, for a file or a terminal.
    public var markdown: String {
        let sections = [trafficText, combinationsText, stepText, stateText, largestText, optimizerText, timeText]
        return wrapped(sections.compactMap(\.self).joined(separator: "\n\n")) + "\n"
    }

    private var bench: TEDBench { ranks.bench }

    /// `calls: expected / measured, bytes: expected / measured`.
    private func cells(_ compared: TrafficRow.Compared, _ operation: Traffic.Operation, _ groups: Traffic.Group...)
        -> String
    {
        let (expected, measured) = groups.reduce((Traffic.Count(), Traffic.Count())) { sum, group in
            (sum.0 + compared.expected[group, operation], sum.1 + compared.measured[group, operation])
        }
        if expected.calls == 0, measured.calls == 0 { return "0" }
        return "\(expected.calls) / \(measured.calls), \(grouped(expected.bytes)) / \(grouped(measured.bytes))"
    }

    private var trafficText: String {
        var table = MarkdownTable("mechanism", "all-to-all", "all-reduce", "reduce-scatter", "all-gather")
        for (name, switches) in TEDSwitches.mechanisms {
            guard let row = ranks.row(switches) else { continue }
            table.add(
                name, cells(row.block, .allToAll, .expert), cells(row.block, .allReduce, .tensor),
                cells(row.block, .reduceScatter, .tensor), cells(row.block, .allGather, .tensor))
        }
        return """
            ### What a mixture's block sends

            \(ranks.layout), on \(place). D \(bench.width), F \(bench.hidden), \(bench.expert * bench.expertsPerRank) \
            experts, top-\(bench.choices), \(bench.isPadded ? "rows padded to their capacity" : "dropless"), \
            \(bench.microBatch) sequences of \(bench.sequence) tokens a rank, \(bench.precision.rawValue), blocks \
            checkpointed. Attention and experts of one block in one step, on one rank: calls expected / measured, \
            bytes expected / measured. Bytes are those that a rank contributes, and of an all-gather those that it \
            gets.

            \(table.text)

            \(claimsText)
            """
    }

    /// The paper's claims as this run's ratios.
    private var claimsText: String {
        let (baseline, cac) = (TEDSwitches.mechanisms[0].switches, TEDSwitches.mechanisms[3].switches)
        let (dtd, fused) = (TEDSwitches.mechanisms[1].switches, TEDSwitches.mechanisms[2].switches)
        func sent(_ switches: TEDSwitches, _ group: Traffic.Group, _ operation: Traffic.Operation) -> Traffic.Count {
            ranks.row(switches)?.block.measured[group, operation] ?? Traffic.Count()
        }
        let (rows, sums) = (sent(baseline, .expert, .allToAll), sent(baseline, .tensor, .allReduce))
        var claims: [String] = []
        if rows.calls > 0 {
            claims.append("CAC takes \(rows.calls) all-to-alls to \(sent(cac, .expert, .allToAll).calls).")
            let ratio = Double(rows.bytes) / Double(max(sent(dtd, .expert, .allToAll).bytes, 1))
            claims.append("DTD divides their bytes by \(decimal(ratio, 2)).")
        }
        if sums.calls > 0 {
            claims.append("CAC takes \(sums.calls) all-reduces to \(sent(cac, .tensor, .allReduce).calls).")
            let scattered = sent(fused, .tensor, .reduceScatter).calls
            claims.append("Fusion makes \(scattered) of \(sent(dtd, .tensor, .allReduce).calls) a reduce-scatter.")
        }
        return claims.joined(separator: " ")
    }

    private var combinationsText: String {
        var table = MarkdownTable(
            "checkpointing", "DTD", "CAC", "fused", "all-to-all", "bytes", "all-reduce", "reduce-scatter", "all-gather",
            "as expected")
        for row in ranks.traffic {
            func mark(_ isOn: Bool) -> String { isOn ? "on" : "" }
            let (switches, sent) = (row.switches, row.block.measured)
            table.add(
                mark(switches.checkpointing), mark(switches.dropsDuplicates), mark(switches.keepsCollectives),
                mark(switches.fusesReduceScatter), "\(sent[.expert, .allToAll].calls)",
                grouped(sent[.expert, .allToAll].bytes), "\(sent[.tensor, .allReduce].calls)",
                "\(sent[.tensor, .reduceScatter].calls)", "\(sent[.tensor, .allGather].calls)",
                row.agreesOnAllRanks ? "yes" : "NO")
        }
        let count = ranks.traffic.count { $0.agreesOnAllRanks }
        return """
            ### Every combination

            Measured calls of the same block, and bytes of its all-to-alls. The last column compares calls and bytes \
            of every layer, of embedding and head, of gradients and of weights on all \(bench.ranks) ranks: \(count) \
            of \(ranks.traffic.count) combinations are as the formulas say.

            \(table.text)
            """
    }

    private var stepText: String {
        var table = MarkdownTable(
            "mechanism", "expert all-to-all", "tensor, all operations", "gradients", "weights")
        for (name, switches) in TEDSwitches.mechanisms {
            guard let row = ranks.row(switches) else { continue }
            let sent = row.step.measured
            let tensor = Traffic.Operation.allCases.reduce(Traffic.Count()) { $0 + sent[.tensor, $1] }
            let sums =
                sent.total(.reduceScatter, over: .data, .expertData) + sent.total(.allReduce, over: .data, .expertData)
            func cell(_ count: Traffic.Count) -> String { "\(count.calls), \(formatBytes(count.bytes))" }
            table.add(
                name, cell(sent[.expert, .allToAll]), cell(tensor), cell(sums),
                cell(sent.total(.allGather, over: .data, .expertData)))
        }
        return """
            ### The whole step

            Calls and bytes of one rank, measured; \(bench.layers) layers, ZeRO-\(bench.zero.rawValue), a step of \
            \(bench.passes == 1 ? "one pass" : "\(bench.passes) passes").

            \(table.text)
            """
    }

    private var stateText: String {
        var table = MarkdownTable(
            "ZeRO, purpose", "closed form", "with norms, routers, padding", "tensors", "off the closed form",
            "allocator", "in its size classes")
        for row in ranks.states {
            let purposes: [(String, KeyPath<StateBytes, Int>)] = [
                ("parameters", \.parameters), ("gradients", \.gradients), ("optimizer state", \.optimizerState),
                ("all", \.total),
            ]
            for (name, purpose) in purposes {
                let (paper, found) = (row.paper[keyPath: purpose], row.measured.tensors[keyPath: purpose])
                table.add(
                    "\(row.zero.rawValue), \(name)", grouped(paper), grouped(row.formula[keyPath: purpose]),
                    grouped(found), "\(decimal(Double(found - paper) / Double(max(paper, 1)) * 100, 2)) %",
                    grouped(row.measured.whole[keyPath: purpose]), grouped(row.blocks[keyPath: purpose]))
            }
        }
        let bench = ranks.stateBench
        let reduced = ranks.states.map {
            "\(grouped($0.measured.reduced.gradients)) with ZeRO-\($0.zero.rawValue)"
        }.joined(separator: ", ")
        return """
            ### State

            Bytes of one rank; D \(bench.width), F \(bench.hidden), \(grouped(bench.baseParameters)) base parameters. \
            The closed form is (w + g)(N / Gt + X / (Gt Ge)) + s (N + X) / G. The allocator rounds each buffer up to \
            an eighth of a power of two. Gradients are all in memory here; after their reduction a rank keeps \
            \(reduced).

            \(table.text)
            """
    }

    private var largestText: String? {
        guard let first = largest.first else { return nil }
        var table = MarkdownTable(
            "layout", "largest base that trains", "foretold", "off", "times the first", "peak bytes", "of that state")
        for entry in largest {
            let (found, foretold) = (entry.foundBase, entry.foretoldBase)
            table.add(
                "tensor \(entry.bench.tensor), expert \(entry.bench.expert)", grouped(found), grouped(foretold),
                "\(decimal(Double(foretold - found) / Double(found) * 100, 1)) %",
                decimal(Double(found) / Double(first.foundBase), 2), grouped(entry.peak), grouped(entry.state))
        }
        return """
            ### The largest base

            \(formatBytes(first.limit)) for each of \(first.bench.ranks) ranks, 4 experts, \
            \(first.bench.precision.rawValue), ZeRO-\(first.bench.zero.rawValue), D \(first.bench.width): F grows \
            until a step no longer fits. Foretold by the formula of state, in the allocator's size classes, and by the \
            activations and workspace that two smaller models needed beside it.

            \(table.text)
            """
    }

    private var optimizerText: String? {
        guard !optimizer.isEmpty else { return nil }
        var table = MarkdownTable("step", "extra bytes expected", "measured", "ms", "state, weights, gradients")
        for spike in optimizer {
            table.add(
                spike.way.rawValue, grouped(spike.expected), grouped(spike.measured), decimal(spike.seconds * 1e3, 1),
                formatBytes(spike.resident))
        }
        return """
            ### The optimizer's spike

            AdamW over a shard of \(grouped(shard)) parameters; the tile has \(grouped(TiledUpcast.paperTile)). The \
            first three came to \(optimizer.agree ? "the same weights, to the bit" : "DIFFERENT weights"). The fused \
            step of precision bf16 reads gradients that were accumulated in 32 bits; that of bf16-pure reads 16 bits, \
            with 16-bit moments, so that its weights are others.

            \(table.text)
            """
    }

    private var timeText: String {
        var table = MarkdownTable("mechanism", "ms a step")
        for (name, switches) in TEDSwitches.mechanisms {
            guard let seconds = ranks.row(switches)?.seconds else { continue }
            table.add(name, decimal(seconds * 1e3, 1))
        }
        return """
            ### Time

            The median step on \(place). Where ranks are threads of one process, a transfer is a copy in its memory: \
            nothing follows for a network.

            \(table.text)
            """
    }
}
