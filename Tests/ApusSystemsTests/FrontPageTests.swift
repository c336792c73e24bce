import ApusTestSupport
import Testing

/// The front page of a paper names what exists.
struct FrontPageTests {
    /// Sections of a recipe that the pages name keys of.
    private static let sections: Set<Substring> = [
        "layout", "training", "experts", "router", "policy", "losses", "distillation",
    ]

    @Test(arguments: ["DeepSpeedTED", "DeepSpeedMoE", "MegaBlocks"])
    func `files, tests and recipe keys of a page are there`(system: String) throws {
        let root = try #require(repositoryRoot())
        let page = try #require(textFile(root + "/Sources/ApusSystems/\(system)/\(system).swift"))
        let keys = try #require(textFile(root + "/Sources/ApusTraining/Recipe/RecipeKeys.swift"))
        let tests = Set(
            files(under: root + "/Tests", suffix: "Tests.swift").compactMap { $0.split(separator: "/").last })
        var found = (places: 0, tests: 0, keys: 0)
        for (index, name) in page.split(separator: "`").enumerated() where index % 2 == 1 {
            let parts = name.split(separator: ".")
            if name.hasPrefix("Apus") || name.hasPrefix("Benchmarks"), name.contains("/") {
                let path = "\(root)/\(name.hasPrefix("Apus") ? "Sources/" : "")\(name)"
                #expect(textFile(path) != nil || !files(under: path, suffix: ".swift").isEmpty, "no \(path)")
                found.places += 1
            } else if name.hasSuffix("Tests") {
                #expect(tests.contains("\(name).swift"), "no \(name).swift")
                found.tests += 1
            } else if parts.count == 2, Self.sections.contains(parts[0]) {
                #expect(keys.contains("\"\(parts[1])\""), "no key \(name)")
                found.keys += 1
            }
        }
        #expect(found.places >= 5 && found.tests >= 8 && found.keys >= 5, "\(found)")
    }
}
