import ApusTensor

/// A number that every step of a run has, by its key in `metrics.jsonl`.
enum Quantity: String, CaseIterable {
    case loss
    case heldOutLoss = "held_out_loss"
    case balanceLoss = "balance_loss"
    case zLoss = "z_loss"
    case droppedFraction = "dropped_fraction"
    case gradientNorm = "grad_norm"
    case learningRate = "lr"
    case tokensPerSecond = "tokens_per_second"
    case mfu
    case peakBytes = "peak_bytes"
    case stepSeconds = "step_seconds"

    fileprivate static let indices = Dictionary(
        uniqueKeysWithValues: allCases.enumerated().map { ($0.element.rawValue, $0.offset) })
}

/// One line of `metrics.jsonl`, read. Keys that it does not know are stepped over.
struct MetricsLine {
    /// For each MoE layer its index and each expert's share of the choices; a share that is missing is NaN.
    private(set) var loads: [(layer: Int, shares: [Double])] = []
    private var values: [Double?] = Array(repeating: nil, count: Quantity.allCases.count)

    /// The value of a quantity; `nil` where the line has none, or `null`.
    subscript(_ quantity: Quantity) -> Double? {
        Quantity.indices[quantity.rawValue].flatMap { values[$0] }
    }

    /// Reads a line.
    init(_ bytes: UnsafeRawBufferPointer) throws(JSONScanner.Fault) {
        var scanner = JSONScanner(bytes)
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            if let index = Quantity.indices[key] {
                values[index] = try scanner.numberOrNull(key)
            } else if key == "expert_share" {
                try readLoads(&scanner)
            } else {
                try scanner.skipValue()
            }
        }
        try scanner.end()
    }

    /// The step that a line is of, without reading the rest of it.
    static func step(of bytes: UnsafeRawBufferPointer) throws(JSONScanner.Fault) -> Int {
        var scanner = JSONScanner(bytes)
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            if key == "step" { return try scanner.wholeNumber("the step") }
            try scanner.skipValue()
        }
        throw scanner.fault("no key \"step\"")
    }

    private mutating func readLoads(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) {
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            guard let layer = Int(key) else { throw scanner.fault("'\(key)' is no layer") }
            var shares: [Double] = []
            var array = try scanner.beginArray()
            while try scanner.nextElement(in: &array) {
                shares.append(try scanner.numberOrNull("a share") ?? .nan)
            }
            loads.append((layer, shares))
        }
    }
}

extension JSONScanner {
    fileprivate mutating func numberOrNull(_ wanted: String) throws(Fault) -> Double? {
        try skipNull() ? nil : try number(wanted)
    }
}
