/// The real numbers that a key accepts, with the words for them.
struct RealRange: Sendable {
    let words: String
    let contains: @Sendable (Double) -> Bool

    /// Any.
    static let any = RealRange(words: "a number") { _ in true }
    /// Above 0.
    static let positive = RealRange(words: "a number above 0") { $0 > 0 }
    /// Above 0, and a number in single precision too.
    static let positiveFloat = RealRange(words: "a number above 0 and at most 3.4e38") { $0 > 0 && Float($0).isFinite }
    /// 0 or more.
    static let nonNegative = RealRange(words: "a number of at least 0") { $0 >= 0 }
    /// 0 or more, less than 1.
    static let belowOne = RealRange(words: "a number of at least 0 and below 1") { $0 >= 0 && $0 < 1 }
    /// Both ends included.
    static let share = RealRange(words: "a number from 0 to 1") { $0 >= 0 && $0 <= 1 }
}

/// The types in which recipes keep real numbers: each reads its own text, so that a written value reads back the same.
protocol RecipeReal: BinaryFloatingPoint, LosslessStringConvertible {}
extension Float: RecipeReal {}
extension Double: RecipeReal {}

/// Bytes from `4096`, `512MiB`, `8GiB`, `1.5 GB`; `nil` when the text says no such thing or no whole number of bytes
/// fits.
func byteCount(_ text: String) -> Int? {
    let units: [(String, Double)] = [
        ("KiB", 0x1p10), ("MiB", 0x1p20), ("GiB", 0x1p30), ("TiB", 0x1p40), ("kB", 1e3), ("KB", 1e3), ("MB", 1e6),
        ("GB", 1e9), ("TB", 1e12), ("B", 1),
    ]
    let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == "." || $0 == "_") }
    let unit = trimmed(text[number.endIndex...])
    let digits = number.filter { $0 != "_" }
    if unit.isEmpty { return Int(digits) }
    guard let factor = units.first(where: { $0.0 == unit })?.1, let amount = Double(digits) else { return nil }
    return Int(exactly: (amount * factor).rounded())
}
