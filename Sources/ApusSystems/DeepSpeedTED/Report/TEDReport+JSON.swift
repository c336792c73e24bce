import ApusCollectives
import ApusParallel
import ApusTensor

extension TEDReport {
    /// One JSON object, for a machine.
    public var json: String {
        object([
            ("bench", jsonString("ted")), ("place", jsonString(place)), ("layout", jsonString(ranks.layout)),
            ("as_expected", "\(isAsExpected)"), ("traffic", array(ranks.traffic.map(json))),
            ("state", array(ranks.states.map(json))), ("largest", array(largest.map(json))),
            ("optimizer_parameters", "\(shard)"), ("optimizer", array(optimizer.map(json))),
        ])
    }

    private func json(_ row: TrafficRow) -> String {
        object([
            ("checkpointing", "\(row.switches.checkpointing)"), ("dtd", "\(row.switches.dropsDuplicates)"),
            ("cac", "\(row.switches.keepsCollectives)"), ("fused", "\(row.switches.fusesReduceScatter)"),
            ("as_expected", "\(row.agreesOnAllRanks)"), ("seconds", row.seconds.map { "\($0)" } ?? "null"),
            ("block_expected", json(row.block.expected)), ("block_measured", json(row.block.measured)),
            ("step_expected", json(row.step.expected)), ("step_measured", json(row.step.measured)),
        ])
    }

    private func json(_ traffic: Traffic) -> String {
        array(
            Traffic.Group.allCases.flatMap { group in
                Traffic.Operation.allCases.compactMap { operation in
                    let count = traffic[group, operation]
                    guard count.calls > 0 else { return nil }
                    return object([
                        ("group", jsonString(group.rawValue)), ("operation", jsonString(operation.rawValue)),
                        ("calls", "\(count.calls)"), ("bytes", "\(count.bytes)"),
                    ])
                }
            })
    }

    private func json(_ row: StateRow) -> String {
        object([
            ("zero", "\(row.zero.rawValue)"), ("closed_form", json(row.paper)), ("formula", json(row.formula)),
            ("tensors", json(row.measured.tensors)), ("allocator", json(row.measured.whole)),
            ("size_classes", json(row.blocks)), ("reduced", json(row.measured.reduced)),
        ])
    }

    private func json(_ bytes: StateBytes) -> String {
        object([
            ("parameters", "\(bytes.parameters)"), ("gradients", "\(bytes.gradients)"),
            ("optimizer_state", "\(bytes.optimizerState)"),
        ])
    }

    private func json(_ entry: LargestBase) -> String {
        object([
            ("tensor", "\(entry.bench.tensor)"), ("expert", "\(entry.bench.expert)"), ("ranks", "\(entry.bench.ranks)"),
            ("limit_bytes", "\(entry.limit)"), ("base_parameters", "\(entry.foundBase)"),
            ("foretold", "\(entry.foretoldBase)"), ("peak_bytes", "\(entry.peak)"), ("state_bytes", "\(entry.state)"),
        ])
    }

    private func json(_ spike: OptimizerSpike) -> String {
        object([
            ("way", jsonString(spike.way.rawValue)), ("expected_bytes", "\(spike.expected)"),
            ("extra_bytes", "\(spike.measured)"), ("seconds", "\(spike.seconds)"),
            ("resident_bytes", "\(spike.resident)"),
        ])
    }

    private func object(_ fields: [(String, String)]) -> String {
        "{" + fields.map { "\(jsonString($0.0)): \($0.1)" }.joined(separator: ", ") + "}"
    }

    private func array(_ values: [String]) -> String { "[" + values.joined(separator: ", ") + "]" }
}
