import Glibc
import Testing

/// The path of the command `apus`: named by `APUS_BINARY`, or beside the tests, where one build puts both.
public func builtCommand() throws -> String {
    var path = getenv("APUS_BINARY").map { String(cString: $0) } ?? ""
    if path.isEmpty {
        var buffer = Array(repeating: CChar(0), count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        let tests = String(decoding: buffer.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        path = tests.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/apus"
    }
    try #require(
        access(path, X_OK) == 0, "no program at '\(path)': build with 'make build', or name it with APUS_BINARY")
    return path
}
