import Glibc

extension FileError: CustomStringConvertible {
    /// One line: the path, what was wrong, and after a semicolon what would work.
    public var description: String {
        switch self {
        case .notFound(let path):
            "\(quoted(path)): no such file or folder; check the path"
        case .wrongKind(let path, let found, let wanted):
            "\(quoted(path)): is \(found); give the path of \(wanted)"
        case .permissionDenied(let path, let operation):
            "\(quoted(path)): permission denied (\(operation)); change its owner or mode, or choose another folder"
        case .noSpace(let path, let operation, let free, let reason):
            "\(quoted(path)): \(reason) (\(operation)\(free.map { ", \($0) bytes free" } ?? "")); "
                + "nothing was replaced: free some space or choose another folder"
        case .system(let path, let operation, let code):
            "\(quoted(path)): \(operation) failed: \(String(cString: strerror(code))) (error \(code)); "
                + "check the storage and try again"
        case .alreadyExists(let path):
            "\(quoted(path)): exists already; choose a new name or ask for it to be replaced"
        case .busy(let path, let temporary):
            "\(quoted(path)): another writer is at work on this name; wait for it to end, "
                + "or remove \(quoted(temporary)) if there is none"
        case .truncated(let path, let what, let bytes, let needed):
            "\(quoted(path)): ends before \(what): has \(bytes) bytes, needs \(needed); copy or download it again"
        case .malformed(let path, let offset, let reason):
            "\(quoted(path))\(offset.map { ", byte \($0)" } ?? ""): \(reason); copy or write the file again"
        case .wrongSize(let path, let expected, let found):
            "\(quoted(path)): has \(found) bytes, its manifest says \(expected); "
                + "copy it again or use an earlier checkpoint"
        case .wrongChecksum(let path, let expected, let found):
            "\(quoted(path)): checksum is \(XXH64.hex(found)), its manifest says \(XXH64.hex(expected)); "
                + "copy it again or use an earlier checkpoint"
        case .unsafeFileName(let path, let name):
            "\(quoted(path)): \(quoted(name)) is not a plain file name; "
                + "it must name a file in the same folder, without '/'"
        case .writeOutOfOrder(let path, let reason):
            "\(quoted(path)): \(reason); write every declared tensor whole and in order"
        default:
            tensorDescription
        }
    }

    private var tensorDescription: String {
        switch self {
        case .invalidTensor(let path, let tensor, let reason):
            "\(quoted(path)): tensor \(quoted(tensor)) \(reason); copy or write the file again"
        case .unsupportedDType(let path, let tensor, let found, let readable):
            "\(quoted(path)): tensor \(quoted(tensor)) has dtype \(quoted(found)), Apus reads \(readable) here; "
                + "convert the tensor first"
        case .valueOutOfRange(let path, let tensor, let element, let value):
            "\(quoted(path)): tensor \(quoted(tensor)), element \(element): \(value) does not fit I32; "
                + "values must lie in \(Int32.min)...\(Int32.max)"
        case .noSuchTensor(let path, let tensor, let known):
            "\(quoted(path)): has no tensor \(quoted(tensor)); "
                + (known.isEmpty ? "it holds none" : "it holds \(known.map(quoted).joined(separator: ", ")), ...")
        case .missingShard(let index, let shard, let tensor):
            "\(quoted(index)): names shard \(quoted(shard)) (for \(quoted(tensor))), which is not in the folder; "
                + "copy the missing file"
        case .notInShard(let index, let shard, let tensor):
            "\(quoted(index)): places tensor \(quoted(tensor)) in \(quoted(shard)), which does not hold it; "
                + "copy index and shards from one source"
        case .notInIndex(let index, let shard, let tensor):
            "\(quoted(index)): does not place tensor \(quoted(tensor)) in \(quoted(shard)), which holds it; "
                + "copy index and shards from one source"
        default:
            "checkpoint file error"
        }
    }
}

/// A name in quotes, fit for one line of a terminal: control characters escaped, long names cut in the middle.
package func quoted(_ name: String) -> String {
    var shown = ""
    for scalar in name.unicodeScalars.prefix(200) {
        shown += scalar.properties.generalCategory == .control ? scalar.escaped(asASCII: true) : String(scalar)
    }
    if name.unicodeScalars.dropFirst(200).isEmpty { return "'\(shown)'" }
    let end = name.unicodeScalars.suffix(40).map { $0.escaped(asASCII: true) }.joined()
    return "'\(shown)...\(end)'"
}
