import ApusModels
import ApusTestSupport
import Testing

/// `generation_config.json`: what it says, and what it must not say.
@Suite struct GenerationDefaultsTests {
    private let folder: ScratchFolder

    init() throws { folder = try ScratchFolder() }

    private func defaults(_ text: String, vocabulary: Int? = 96) throws -> GenerationDefaults {
        try folder.write("generation_config.json", text: text)
        return try GenerationDefaults(folder: folder.path, vocabulary: vocabulary)
    }

    @Test func `a folder without the file has none`() throws {
        #expect(try GenerationDefaults(folder: folder.path) == GenerationDefaults())
    }

    @Test func `every key that counts is read`() throws {
        let text = """
            {"bos_token_id": 1, "eos_token_id": [7, 9], "pad_token_id": 0, "do_sample": true, "temperature": 0.6,
             "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0", "max_new_tokens": 2048}
            """
        let expected = GenerationDefaults(
            tokens: SpecialTokens(beginning: 1, ends: [7, 9], padding: 0), isSampled: true, temperature: 0.6, topK: 20,
            topP: 0.95)
        #expect(try defaults(text) == expected)
    }

    @Test func `one id is a list of one, and null is nothing`() throws {
        #expect(try defaults(#"{"eos_token_id": 95}"#).tokens.ends == [95])
        let nulls = #"{"eos_token_id": null, "do_sample": null, "temperature": null, "top_k": null, "top_p": null}"#
        #expect(try defaults(nulls) == GenerationDefaults())
        #expect(try defaults(#"{"temperature": 1, "top_p": 1}"#) == GenerationDefaults(temperature: 1, topP: 1))
    }

    @Test(arguments: [
        (#"{"eos_token_id": "2"}"#, "'eos_token_id' is '2'", "whole number"),
        (#"{"eos_token_id": -1}"#, "'eos_token_id' is -1", "from 0"),
        (#"{"eos_token_id": [2, 1.5]}"#, "'eos_token_id' is 1.5", "token ids"),
        (#"{"eos_token_id": [2, 96]}"#, "'eos_token_id' is 96", "0 ... 95"),
        (#"{"do_sample": 1}"#, "'do_sample' is 1", "true or false"),
        (#"{"temperature": "hot"}"#, "'temperature' is 'hot'", "a number"),
        (#"{"temperature": -0.5}"#, "'temperature' is -0.5", "0 or a number above"),
        (#"{"temperature": 1e300}"#, "'temperature' is 1e+300", "single precision"),
        (#"{"top_k": 2.5}"#, "'top_k' is 2.5", "whole number from 0"),
        (#"{"top_p": 0}"#, "'top_p' is 0", "above 0 and at most 1"),
        (#"{"top_p": 1.5}"#, "'top_p' is 1.5", "above 0 and at most 1"),
        (#"[1]"#, "is a list of 1", "not a JSON object"), (#"{"top_k": "#, "is not JSON", "generation_config.json"),
    ])
    func `a broken file is refused with the key and what would work`(_ text: String, _ found: String, _ wanted: String)
        throws
    {
        let error = try #require(throws: ModelConfigurationError.self) { try defaults(text) }
        let message = "\(error)"
        #expect(message.contains("\(folder.path)/generation_config.json"), "\(message)")
        #expect(message.contains(found) && message.contains(wanted), "\(message)")
    }

    @Test func `ids are checked against a vocabulary that is known`() throws {
        #expect(try defaults(#"{"eos_token_id": 96}"#, vocabulary: nil).tokens.ends == [96])
    }
}
