import Glibc
import Testing

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

/// The bytes of a file.
public func fileBytes(_ path: String) throws -> [UInt8] {
    try #require(readFile(path), "'\(path)' cannot be read")
}

/// The text of a file, or `nil` when it cannot be read.
public func textFile(_ path: String) -> String? { readFile(path).map { String(decoding: $0, as: UTF8.self) } }

private func readFile(_ path: String) -> [UInt8]? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = Array(repeating: UInt8(0), count: 1 << 16)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
        bytes.append(contentsOf: buffer[..<count])
    }
    return bytes
}
