import Testing

/// The path of a folder under `Tests/Goldens`, or of that one itself.
public func goldenFolder(_ name: String = "") throws -> String {
    let goldens = try #require(repositoryRoot()) + "/Tests/Goldens"
    return name.isEmpty ? goldens : "\(goldens)/\(name)"
}

extension ScratchFolder {
    /// Copies a folder under `Tests/Goldens` into this one and returns the copy's path.
    public func copy(golden name: String) throws -> String { try copy(folder: goldenFolder(name), as: name) }
}
