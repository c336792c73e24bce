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

    /// The binary: named by `APUS_BINARY`, or beside the tests, where one build puts both.
    private static func binary() throws -> String {
        let named = ProcessInfo.processInfo.environment["APUS_BINARY"]
        let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let path = named ?? (tests as NSString).deletingLastPathComponent + "/apus"
        try #require(
            access(path, X_OK) == 0, "no program at '\(path)': build with 'make build', or name it with APUS_BINARY")
        return path
    }

    /// Runs `apus` with these arguments.
    static func run(_ arguments: [String], input: String = "") throws -> Result {
        try run(binary(), arguments, input: input)
    }

    /// Runs a program; text goes through files, so that neither side waits for the other.
    static func run(_ program: String, _ arguments: [String], input: String = "") throws -> Result {
        let scratch = try CLIScratch()
        try Data(input.utf8).write(to: URL(fileURLWithPath: "\(scratch.path)/in"))
        for name in ["out", "err"] { try Data().write(to: URL(fileURLWithPath: "\(scratch.path)/\(name)")) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: "\(scratch.path)/in"))
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(scratch.path)/out"))
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(scratch.path)/err"))
        try process.run()
        process.waitUntilExit()
        let status = process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
        return Result(
            status: status, output: textFile("\(scratch.path)/out") ?? "", errors: textFile("\(scratch.path)/err") ?? ""
        )
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

/// A folder of its own, removed at the end of its life.
final class CLIScratch {
    let path: String

    init() throws {
        var template = Array("/tmp/apus-cli-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    @discardableResult
    func write(_ name: String, _ text: String) throws -> String {
        try Data(text.utf8).write(to: URL(fileURLWithPath: file(name)))
        return file(name)
    }

    /// A copy of a golden model's folder.
    func copy(_ golden: String) throws -> String {
        try FileManager.default.copyItem(atPath: goldenFolder(golden), toPath: file(golden))
        return file(golden)
    }
}

/// A folder under `Tests/Goldens`.
func goldenFolder(_ name: String) throws -> String { try #require(repositoryRoot()) + "/Tests/Goldens/\(name)" }

/// Rows of equal length as the JSON text that `--tokens` reads.
func tokenLists(_ ids: [Int32], width: Int) -> String {
    let rows = stride(from: 0, to: ids.count, by: width).map { begin in
        "[" + ids[begin..<begin + width].map(String.init).joined(separator: ", ") + "]"
    }
    return "[" + rows.joined(separator: ",\n ") + "]"
}
