/// A version as libraries count them: major and minor.
public struct LibraryVersion: Sendable, Comparable, CustomStringConvertible {
    /// What may break between versions.
    public let major: Int
    /// What is added within a major version.
    public let minor: Int

    /// A version.
    public init(_ major: Int, _ minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// For messages: `12.4`.
    public var description: String { "\(major).\(minor)" }

    /// Whether `left` came before `right`.
    public static func < (left: LibraryVersion, right: LibraryVersion) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }
}
