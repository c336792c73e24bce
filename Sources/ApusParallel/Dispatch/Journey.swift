import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor

/// Where the rows of one decision have gone: what bringing their results back takes.
struct Journey {
    /// The decision.
    let decision: RoutingDecision
    /// What this rank sent.
    let shipment: any RowShipment
    /// The way back.
    let path: RowPath
    /// From the order in which experts read to that in which rows arrived; `nil` when they are the same.
    let order: RowOrder?
}

/// The journeys whose rows are at the experts.
///
/// A pass that ends in between, by an error or because nobody combines what was dispatched, leaves its journeys behind.
/// They are its tape's, and are forgotten by the next dispatch after the tape is gone.
struct OpenJourneys {
    private struct Entry {
        weak var tape: Tape?
        let journey: Journey
    }

    private var entries: [Entry] = []

    /// How many there are.
    var count: Int { entries.count }

    /// Notes a journey of a pass on `tape`.
    mutating func begin(_ journey: Journey, on tape: Tape) {
        entries.removeAll { $0.tape == nil }
        entries.append(Entry(tape: tape, journey: journey))
    }

    /// The journey of `decision` on `tape`, which ends here. Decisions are values, told apart by the storage of their
    /// tensors.
    mutating func end(of decision: RoutingDecision, on tape: Tape) -> Journey {
        let storage = decision.permutation.slotToRow.storage
        guard
            let index = entries.firstIndex(where: {
                $0.tape === tape && $0.journey.decision.permutation.slotToRow.storage === storage
            })
        else { preconditionFailure("what is combined was dispatched before, on the same tape") }
        return entries.remove(at: index).journey
    }
}
