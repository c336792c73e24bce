import Glibc

/// Standard output, past the C library's buffer: what is shown is what has happened, also when piped.
public enum Console {
    /// Whether standard output is a terminal.
    public static var isTerminal: Bool { isatty(STDOUT_FILENO) != 0 }

    /// Writes a line.
    public static func line(_ text: String) { write(text + "\n") }

    /// Writes text as it is. A reader that has gone away is not an error.
    public static func write(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }
}
