import ApusTestSupport
import Foundation
import Testing

/// The command `apus`, run to its end as a process of its own.
struct CLI {
    /// How it ended and what it printed.
    struct Result {
        let status: Int32
        let output: String
        let errors: String

        /// Standard output as one JSON object.
        func object() throws -> [String: Any] {
            try #require(
                try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any], "\(output)\(errors)")
        }
    }

    /// Runs `apus` with these arguments.
    static func run(_ arguments: [String], input: String = "") throws -> Result {
        try run(builtCommand(), arguments, input: input)
    }

    /// Runs a program; a status below 0 is the signal that ended it.
    static func run(_ program: String, _ arguments: [String], input: String = "") throws -> Result {
        let process = try ChildProcess(program, arguments, input: input)
        let status: Int32 =
            switch process.wait() {
            case .exit(let status): status
            case .signal(let signal): -signal
            }
        return Result(status: status, output: process.output, errors: process.errors)
    }

    /// Runs `apus` and expects it to refuse: status 1, nothing on standard output, one line that begins with `error:`
    /// and holds each of `parts`.
    static func expectRefusal(
        _ arguments: [String], _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let result = try run(arguments)
        #expect(result.status == 1, "\(result.errors)", sourceLocation: sourceLocation)
        #expect(result.output.isEmpty, sourceLocation: sourceLocation)
        #expect(result.errors.hasPrefix("error: "), "\(result.errors)", sourceLocation: sourceLocation)
        for part in parts {
            #expect(result.errors.contains(part), "'\(part)' in: \(result.errors)", sourceLocation: sourceLocation)
        }
    }
}

/// Rows of equal length as the JSON text that `--tokens` reads.
func tokenLists(_ ids: [Int32], width: Int) -> String {
    let rows = stride(from: 0, to: ids.count, by: width).map { begin in
        "[" + ids[begin..<begin + width].map(String.init).joined(separator: ", ") + "]"
    }
    return "[" + rows.joined(separator: ",\n ") + "]"
}
