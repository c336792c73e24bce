import ApusTensor
import Glibc

extension RunReport {
    /// The run as the JSON object that the page's program reads: names, steps, curves, held-out points and heat maps.
    var json: String {
        let curves = curves.sorted { $0.key < $1.key }.map { key, curve in
            let means = "\"mean\":\(list(curve.means))"
            let range = isBucketed ? ",\"min\":\(list(curve.least)),\"max\":\(list(curve.most))" : ""
            return "\(jsonString(key)):{\(means)\(range)}"
        }
        let layers = loads.layers.sorted { $0.key < $1.key }.map { index, layer in
            "{\"layer\":\(index),\"experts\":\(layer.experts),\"cells\":\"\(layer.cells)\"}"
        }
        let columns = columns.map { "[\($0.first),\($0.last)]" }
        let held = "{\"steps\":\(whole(heldOut.map(\.step))),\"values\":\(list(heldOut.map(\.value)))}"
        return """
            {"name":\(jsonString(name)),"steps":\(whole(steps)),"curves":{\(curves.joined(separator: ","))},\
            "held":\(held),"heat":{"columns":[\(columns.joined(separator: ","))],\
            "layers":[\(layers.joined(separator: ","))]}}
            """
    }

    private func whole(_ values: [Int]) -> String { "[" + values.map(String.init).joined(separator: ",") + "]" }

    private func list(_ values: [Double?]) -> String {
        "[" + values.map { $0.map(shortNumber) ?? "null" }.joined(separator: ",") + "]"
    }
}

/// A finite number as JSON with five significant digits.
func shortNumber(_ value: Double) -> String {
    guard value != 0, value.isFinite else { return value == 0 ? "0" : "null" }
    let digits = 4 - Int(log10(value.magnitude).rounded(.down))
    // Powers of ten are exact up to 10^22; a value beyond that is far below or above what a run measures.
    let scale = pow(10, Double(min(digits.magnitude, 22)))
    let result = digits >= 0 ? (value * scale).rounded() / scale : (value / scale).rounded() * scale
    guard result != 0 else { return "\(value)" }
    if let integer = Int(exactly: result) { return String(integer) }
    return "\(result)"
}
