import ApusModels

/// Reads `data`: one source by `path`, or several by `sources`.
struct DataReader {
    let section: Section
    /// Those of images, where these are what is read.
    let patches: PatchConfiguration?

    /// Most tokens of a sequence.
    static let longest = 1 << 20

    func data() -> DataConfiguration {
        let sources = section.value("sources") == nil ? [onlySource()] : mixture()
        let temperature = section.real("temperature", .positive, default: 1.0, example: 5)
        section.require(
            temperature == 1 || sources.count > 1, "temperature", with: [section.full("sources")],
            "is \(temperature), with one source", "use 1 or remove the key, or list several data.sources")
        let length = sequenceLength()
        checkImages(sources)
        return DataConfiguration(
            sources: sources,
            vocabulary: section.choice("vocabulary", default: DataConfiguration.Vocabulary.bytes),
            sequenceLength: length,
            heldOut: section.real("held_out", .belowOne, default: 0.05, example: 0.05),
            shuffle: section.flag("shuffle", default: true), temperature: temperature,
            documentMask: section.flag("document_mask", default: false), verify: section.flag("verify", default: true))
    }

    private func sequenceLength() -> Int {
        let length = section.integer("sequence_length", 1...Self.longest, default: patches?.tokens, example: 256)
        guard let patches else { return length }
        section.require(
            length == patches.tokens, "sequence_length", with: ["model.patches"],
            "is \(length), but model.patches make \(patches.tokens) tokens of an image", "leave it out")
        return patches.tokens
    }

    private func checkImages(_ sources: [DataConfiguration.Source]) {
        guard patches != nil else { return }
        section.require(
            sources.count <= 1, "sources", "has \(sources.count) sources, and images come in one file",
            "use data.path, or leave out model.patches")
        section.require(
            !section.flag("document_mask", default: false), "document_mask", "is true, and images have no documents",
            "use false, or leave out model.patches")
    }

    private static let examplePath = "the path of a text file or folder, or of prepared data"
    private static let exampleList = "a list such as [{path: books, weight: 2}, {path: web, weight: 1}]"

    private func onlySource() -> DataConfiguration.Source {
        DataConfiguration.Source(path: section.text("path", example: Self.examplePath))
    }

    private func mixture() -> [DataConfiguration.Source] {
        if section.value("path") != nil {
            section.flaw("path", "stands beside data.sources", "remove one of them; sources have paths of their own")
        }
        guard let node = section.value("sources"), case .sequence(let items) = node.content, !items.isEmpty else {
            section.flaw("sources", "is \(section.value("sources")?.shown ?? "empty")", "\(Self.exampleList) is needed")
            return []
        }
        let sources = items.compactMap(source)
        let weighted = sources.count { $0.weight != nil }
        section.require(
            weighted == 0 || weighted == items.count, "sources", with: [section.full("sources.weight")],
            "has \(weighted) weights for \(items.count) sources", "give every source a weight, or none")
        section.require(
            Set(sources.map(\.path)).count == sources.count, "sources", with: [section.full("sources.path")],
            "names a path twice", "give it once, with the sum of the weights")
        return sources
    }

    private func source(_ node: SourceNode) -> DataConfiguration.Source? {
        guard case .mapping = node.content else {
            section.log.add(
                node.place, section.full("sources"), "holds \(node.shown)", "\(Self.exampleList) is needed")
            return nil
        }
        let source = Section(node, name: section.full("sources"), log: section.log)
        return DataConfiguration.Source(
            path: source.text("path", example: Self.examplePath),
            weight: source.value("weight") == nil ? nil : source.real("weight", .positive, example: 1.0))
    }
}
