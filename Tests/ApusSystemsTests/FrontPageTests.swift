import ApusTestSupport
import Testing

/// The front page of a paper names what exists.
struct FrontPageTests {
    /// Sections of a recipe that the pages name keys of.
    private static let sections: Set<Substring> = [
        "layout", "training", "experts", "router", "policy", "losses", "distillation",
    ]

    @Test(arguments: [
        ("DeepSpeedTED", 10, 10, 6), ("DeepSpeedMoE", 8, 10, 8), ("MegaBlocks", 6, 8, 4), ("ScMoE", 10, 10, 8),
    ])
    func `files, tests and recipe keys of a paper are there`(
        _ paper: String, _ places: Int, _ tests: Int, _ keys: Int
    ) throws {
        let root = try #require(repositoryRoot())
        let page = try #require(textFile(root + "/Sources/ApusSystems/\(paper)/\(paper).swift"))
        let known = try #require(textFile(root + "/Sources/ApusTraining/Recipe/RecipeKeys.swift"))
        let suites = Set(
            files(under: root + "/Tests", suffix: "Tests.swift").compactMap { $0.split(separator: "/").last })
        var found = (places: 0, tests: 0, keys: 0)
        for (index, name) in page.split(separator: "`").enumerated() where index % 2 == 1 {
            let parts = name.split(separator: ".")
            if ["Apus", "Benchmarks/", "Recipes/"].contains(where: { name.hasPrefix($0) }), name.contains("/") {
                let path = name.hasPrefix("Apus") ? "\(root)/Sources/\(name)" : "\(root)/\(name)"
                #expect(textFile(path) != nil || !files(under: path, suffix: ".swift").isEmpty, "no \(path)")
                found.places += 1
            } else if name.hasSuffix("Tests") {
                #expect(suites.contains("\(name).swift"), "no \(name).swift")
                found.tests += 1
            } else if parts.count == 2, Self.sections.contains(parts[0]) {
                #expect(known.contains("\"\(parts[1])\""), "no key \(name)")
                found.keys += 1
            }
        }
        #expect(found.places >= places && found.tests >= tests && found.keys >= keys, "\(found)")
    }
}
