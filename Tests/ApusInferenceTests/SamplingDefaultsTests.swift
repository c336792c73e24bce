import ApusInference
import ApusModels
import Testing

/// What is asked for goes before what the model's folder says, and that before greedy.
@Suite struct SamplingDefaultsTests {
    private let folder = GenerationDefaults(isSampled: true, temperature: 0.6, topK: 20, topP: 0.9)

    @Test func `without a word from either the best token is taken`() {
        #expect(SamplingOptions(GenerationDefaults()) == SamplingOptions())
    }

    @Test func `the folder's settings count`() {
        let expected = SamplingOptions(temperature: 0.6, topK: 20, topP: 0.9, seed: 4)
        #expect(SamplingOptions(folder, seed: 4) == expected)
    }

    @Test func `each setting that is asked for replaces the folder's`() {
        #expect(SamplingOptions(folder, temperature: 0) == SamplingOptions(temperature: 0, topK: 20, topP: 0.9))
        #expect(SamplingOptions(folder, topK: 0) == SamplingOptions(temperature: 0.6, topK: 0, topP: 0.9))
        #expect(SamplingOptions(folder, topP: 1) == SamplingOptions(temperature: 0.6, topK: 20, topP: 1))
    }

    @Test(arguments: [nil, false])
    func `a folder that does not draw is greedy whatever its temperature, and bounds a draw that is asked for`(
        _ isSampled: Bool?
    ) {
        var quiet = folder
        quiet.isSampled = isSampled
        #expect(SamplingOptions(quiet).isGreedy)
        let expected = SamplingOptions(temperature: 0.8, topK: 20, topP: 0.9)
        #expect(SamplingOptions(quiet, temperature: 0.8) == expected)
    }

    @Test func `a folder that draws without a temperature draws at 1`() {
        #expect(SamplingOptions(GenerationDefaults(isSampled: true)) == SamplingOptions(temperature: 1))
    }
}
