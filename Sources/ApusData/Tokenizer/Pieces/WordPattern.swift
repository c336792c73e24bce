/// The regular expressions by which published byte-level vocabularies cut text into words, each as a scanner.
///
/// Only these are known: a regular expression engine over every byte would be the slowest part of encoding.
enum WordPattern: Sendable, Equatable, CaseIterable {
    /// GPT-2 and GPT-NeoX.
    case gpt2
    /// Llama 3: letters with one mark before them, numbers of up to three digits.
    case llama3
    /// Qwen 2, 2.5 and 3: as Llama 3, numbers of one digit.
    case qwen2

    /// The expression as `tokenizer.json` writes it.
    var expression: String {
        switch self {
        case .gpt2: #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
        case .llama3: WordPattern.marked(number: #"\p{N}{1,3}"#)
        case .qwen2: WordPattern.marked(number: #"\p{N}"#)
        }
    }

    private static func marked(number: String) -> String {
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"# + number
            + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    }

    /// The name it is known by.
    var name: String {
        switch self {
        case .gpt2: "GPT-2"
        case .llama3: "Llama 3"
        case .qwen2: "Qwen 2"
        }
    }

    /// The pattern of an expression; nil for any other.
    init?(expression: String) {
        guard let found = WordPattern.allCases.first(where: { $0.expression == expression }) else { return nil }
        self = found
    }
}
