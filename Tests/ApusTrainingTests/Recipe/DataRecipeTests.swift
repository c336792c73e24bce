import ApusTraining
import Testing

/// What `data` may say, and what it is told.
@Suite struct DataRecipeTests {
    private func recipe(_ data: String, training: String = "steps: 5, batch: 2") throws -> Recipe {
        try Recipe(
            yaml: "model: {preset: tiny}\ndata:\n  \(data.replacing("\n", with: "\n  "))\ntraining: {\(training)}")
    }

    private func refusal(_ data: String) -> String {
        let error = #expect(throws: Recipe.Error.self) { try recipe(data) }
        return error?.description ?? ""
    }

    @Test func `sources, weights and temperature read and read back`() throws {
        let weighted = try recipe(
            """
            sources:
              - {path: prepared/books, weight: 2}
              - path: web
                weight: 0.5
            temperature: 5
            document_mask: true
            verify: false
            sequence_length: 64
            """)
        #expect(
            weighted.data
                == DataConfiguration(
                    sources: [.init(path: "prepared/books", weight: 2), .init(path: "web", weight: 0.5)],
                    sequenceLength: 64, temperature: 5, documentMask: true, verify: false))
        #expect(try Recipe(yaml: weighted.resolvedYAML()) == weighted)
        let plain = try recipe("sources: [{path: a}, {path: b}]\nsequence_length: 64")
        #expect(plain.data.sources == [.init(path: "a"), .init(path: "b")])
        #expect(try Recipe(yaml: plain.resolvedYAML()) == plain)
        let one = try recipe("sources: [{path: a}]\nsequence_length: 64")
        #expect(one.data == DataConfiguration(path: "a", sequenceLength: 64))
    }

    @Test func `what cannot be is refused with what works`() {
        let length = "\nsequence_length: 64"
        let cases: [(data: String, parts: [String])] = [
            ("sources: [{path: a, wieght: 2}]", ["data.sources.wieght", "did you mean weight?"]),
            ("sources: [{path: a}]\npath: b", ["data.path stands beside data.sources", "remove one"]),
            ("sources: [a, b]", ["data.sources holds \"a\"", "a list such as [{path: books"]),
            ("sources: books", ["data.sources is \"books\"", "a list such as"]),
            ("sources: []", ["data.sources is a list", "a list such as"]),
            ("sources: [{weight: 1}]", ["data.sources.path is missing"]),
            ("sources: [{path: a, weight: 0}]", ["data.sources.weight is 0", "above 0"]),
            ("sources: [{path: a, weight: 1}, {path: b}]", ["1 weights for 2 sources", "every source"]),
            ("sources: [{path: a}, {path: a}]", ["names a path twice"]),
            ("path: a\ntemperature: 2", ["data.temperature is 2.0, with one source", "data.sources"]),
            ("sources: [{path: a}, {path: b}]\ntemperature: 0", ["data.temperature is 0", "above 0", "for example 5"]),
            ("source: [{path: a}]", ["data.source is no key", "did you mean sources?"]),
            ("path: a\ndocument_mask: 1", ["data.document_mask is 1", "true or false"]),
        ]
        for (data, parts) in cases {
            let text = refusal(data + length)
            for part in parts { #expect(text.contains(part), "'\(part)' in: \(text)") }
        }
    }
}
