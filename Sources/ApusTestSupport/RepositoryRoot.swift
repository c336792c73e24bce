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

/// The names in a folder, sorted; empty when it cannot be read.
public func folderNames(_ path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}

/// The paths of all files below a folder whose names end in `suffix`.
public func files(under path: String, suffix: String) -> [String] {
    folderNames(path).flatMap { name -> [String] in
        let full = "\(path)/\(name)"
        return name.hasSuffix(suffix) ? [full] : files(under: full, suffix: suffix)
    }
}

/// The text of a file, or `nil` when it cannot be read.
public func textFile(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = Array(repeating: UInt8(0), count: 1 << 16)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
        bytes.append(contentsOf: buffer[..<count])
    }
    return String(decoding: bytes, as: UTF8.self)
}
