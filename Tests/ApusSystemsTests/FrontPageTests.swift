import ApusTestSupport
import Testing

/// The front page of a paper names what exists.
struct FrontPageTests {
    @Test func `files, tests and recipe keys of DeepSpeed-TED are there`() throws {
        let root = try #require(repositoryRoot())
        let page = try #require(textFile(root + "/Sources/ApusSystems/DeepSpeedTED/DeepSpeedTED.swift"))
        let keys = try #require(textFile(root + "/Sources/ApusTraining/Recipe/RecipeKeys.swift"))
        let tests = Set(
            files(under: root + "/Tests", suffix: "Tests.swift").compactMap { $0.split(separator: "/").last })
        var found = (places: 0, tests: 0, keys: 0)
        for (index, name) in page.split(separator: "`").enumerated() where index % 2 == 1 {
            let parts = name.split(separator: ".")
            if name.hasPrefix("Apus"), name.contains("/") {
                let path = "\(root)/Sources/\(name)"
                #expect(textFile(path) != nil || !files(under: path, suffix: ".swift").isEmpty, "no \(path)")
                found.places += 1
            } else if name.hasSuffix("Tests") {
                #expect(tests.contains("\(name).swift"), "no \(name).swift")
                found.tests += 1
            } else if parts.count == 2, parts[0] == "layout" || parts[0] == "training" {
                #expect(keys.contains("\"\(parts[1])\""), "no key \(name)")
                found.keys += 1
            }
        }
        #expect(found.places >= 10 && found.tests >= 10 && found.keys >= 6, "\(found)")
    }
}
