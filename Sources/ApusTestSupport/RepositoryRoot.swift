import Glibc

/// The folder that holds `Package.swift`, found upwards from a source file.
///
/// - Parameter file: Where to start; by default the caller's file.
/// - Returns: The path without a slash at its end, or `nil` when no folder above holds a package.
public func repositoryRoot(from file: String = #filePath) -> String? {
    var parts = file.split(separator: "/", omittingEmptySubsequences: false)
    while parts.count > 1 {
        parts.removeLast()
        let folder = parts.joined(separator: "/")
        if access("\(folder)/Package.swift", F_OK) == 0 { return folder }
    }
    return nil
}
