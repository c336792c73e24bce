import ApusTestSupport
import Testing

@Suite struct `Arrows between targets` {
    /// The lines of the architecture, lowest first: a target may import what is on a lower line.
    static let lines: [[String]] = [
        ["CApusDrivers", "CApusKernels", "CApusCUDA", "CApusReport"],
        ["ApusTensor"],
        ["ApusKernels", "ApusCollectives"],
        ["ApusNN", "ApusCUDA"],
        ["ApusExperts", "ApusOptim"],
        ["ApusModels", "ApusParallel", "ApusData"],
        ["ApusPlanner"],
        ["ApusTraining", "ApusInference"],
        ["ApusServing", "ApusReport", "ApusSystems"],
        ["Apus"],
        ["ApusCLI"],
    ]

    /// Seen by tests only, so that no other target may name it; itself it may import anything below the command.
    static let testSupport = "ApusTestSupport"

    static func isOurs(_ module: String) -> Bool { module.hasPrefix("Apus") || module.hasPrefix("CApus") }

    static func level(_ target: String) -> Int? { lines.firstIndex { $0.contains(target) } }

    /// The modules that a source text imports, whatever the access level, attribute or kind of the import.
    static func imports(of text: String) -> [String] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let keyword = words.firstIndex(of: "import"),
                words[..<keyword].allSatisfy({
                    $0.hasPrefix("@") || ["public", "package", "internal", "fileprivate", "private"].contains($0)
                })
            else { return nil }
            let kinds = ["struct", "class", "enum", "protocol", "func", "let", "var", "typealias"]
            let name = words[(keyword + 1)...].first { !kinds.contains(String($0)) }
            return name.map { String($0.prefix { $0 != "." }) }
        }
    }

    private func root() throws -> String { try #require(repositoryRoot()) }

    @Test func `point down only`() throws {
        let sources = try root() + "/Sources"
        var checked = 0
        for target in folderNames(sources) where !target.hasPrefix("C") {
            for path in files(under: "\(sources)/\(target)", suffix: ".swift") {
                let own = try #require(
                    target == Self.testSupport ? Self.lines.count : Self.level(target), "\(target) has no line")
                for module in Self.imports(of: try #require(textFile(path))) where Self.isOurs(module) {
                    let other = Self.level(module) ?? .max
                    #expect(other < own, "\(path) imports \(module), which is not on a lower line")
                    checked += 1
                }
            }
        }
        #expect(checked > 50, "only \(checked) imports were found under \(sources)")
    }

    @Test func `start at targets that have a line`() throws {
        for target in folderNames(try root() + "/Sources") where target != Self.testSupport {
            #expect(Self.level(target) != nil, "\(target) is on no line of the architecture")
        }
    }

    @Test(arguments: [
        ("import ApusNN", ["ApusNN"]), ("public import ApusTensor", ["ApusTensor"]),
        ("@testable import ApusNN", ["ApusNN"]),
        ("import struct ApusTensor.Shape", ["ApusTensor"]), ("// import ApusNN", []), ("/// It may import ApusNN", []),
        ("import Glibc\n@_exported public import ApusCLI", ["Glibc", "ApusCLI"]),
    ])
    func `are read from every form of import`(text: String, modules: [String]) {
        #expect(Self.imports(of: text) == modules)
    }
}
