import ApusTestSupport

/// Text as nobody writes it: every script, marks without letters, runs of spaces, pieces of tokens.
enum FuzzedText {
    private static let blocks: [ClosedRange<UInt32>] = [
        0x20...0x7E, 0x20...0x7E, 0x300...0x36F, 0xC0...0x24F, 0x370...0x52F, 0x590...0x7FF, 0x900...0xE7F,
        0x1100...0x11FF,
        0x1E00...0x1FFF, 0x3040...0x30FF, 0x4E00...0x51FF, 0xAC00...0xB3D0, 0xF900...0xFB4F, 0x1D15E...0x1D1C0,
        0x1F300...0x1F6FF, 0x0...0x10FFFF,
    ]
    private static let strings = [
        " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u{A0}", "\u{3000}", "\u{85}", "\u{2028}", "\u{200D}", "\u{FE0F}",
        "0", "12", "345", "٣", "Ⅷ", "½", "'s", "'S", "'re", "'LL", "'vE", "'\u{17F}", "'", "<|endoftext|>",
        "<|im_start|>",
        "<tool_call>", "<|begin_of_text|>", "<mask>", " <mask>", "<right>", "word", "ümlaut", "u\u{308}mlaut",
        "two words",
        "<s>", "</s>", "<unk>", "<0x0A>", "▁", "▁▁", "Ġ", "Ċ", "the ", "return", "  self.",
    ]

    /// Documents that are the same for the same seed, and a few of extreme length.
    static func documents(_ count: Int, seed: UInt64) -> [[UInt8]] {
        var random = SeededGenerator(seed: seed)
        let fuzzed = (0..<count).map { _ in Array(document(&random).utf8) }
        let extreme = [
            "", String(repeating: "a", count: 5000), String(repeating: "ab", count: 3000),
            String(repeating: " ", count: 3000),
            String(repeating: "\n", count: 3000), "x" + String(repeating: " ", count: 77) + "y",
            String(repeating: "漢", count: 3000), String(repeating: "1", count: 1000),
            String(repeating: "a\u{301}", count: 500),
            String(repeating: "\u{301}\u{316}", count: 100), String(repeating: "\u{1112}\u{1161}\u{11AB}", count: 100),
        ]
        return fuzzed + extreme.map { Array($0.utf8) }
    }

    private static func document(_ random: inout SeededGenerator) -> String {
        var text = ""
        for _ in 0..<random.pick([1, 2, 3, 5, 8, 20, 60]) {
            if Bool.random(using: &random) {
                for _ in 0..<random.pick([1, 1, 2, 4]) { text += random.pick(strings) }
            } else {
                let block = random.pick(blocks)
                for _ in 0..<random.pick([1, 1, 2, 4, 12]) {
                    if let scalar = Unicode.Scalar(UInt32.random(in: block, using: &random)) {
                        text.unicodeScalars.append(scalar)
                    }
                }
            }
        }
        return text
    }
}
