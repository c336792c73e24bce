import ApusModels
import ApusNN
import ApusTensor

/// `optimizer.pieces.json`: which elements of which parameter's state a tensor of an optimizer's file holds.
///
/// It is there where several ranks wrote a checkpoint, each what it had. A file of one rank needs none: it holds the whole
/// of every state.
struct StatePieceIndex: Sendable, Equatable {
    /// Name of the index in its folder.
    static let fileName = "optimizer.pieces.json"

    /// Where the elements of a stored tensor are in the parameter.
    struct Piece: Sendable, Hashable {
        /// Extents of the whole parameter.
        let shape: [Int]
        /// The part of it that the writer held; `nil` for all.
        let shard: Shard?
        /// The elements of what the writer held, in its order.
        let elements: Range<Int>

        /// Runs of the elements in the whole, ascending, and where each begins in the stored tensor.
        var runs: [(stored: Int, whole: Range<Int>)] {
            let runs = shard?.runs(of: elements, in: shape) ?? [ShardRun(held: elements, whole: elements.lowerBound)]
            return runs.map { ($0.held.lowerBound - elements.lowerBound, $0.whole..<$0.whole + $0.held.count) }
        }

        func hash(into hasher: inout Hasher) {
            hasher.combine(shape)
            hasher.combine(shard?.dimension)
            hasher.combine(shard?.range)
            hasher.combine(elements)
        }
    }

    /// By file, and in it by tensor: `<kind>.<parameter>`.
    let files: [String: [String: Piece]]
}

/// The text: `{"version": 1, "files": {file: {tensor: {"shape", "shard", "elements"}}}}` with `shard` as dimension, from and
/// to, which is left out where the writer held the whole parameter, and `elements` as from and to.
extension StatePieceIndex {
    var json: String {
        let files = files.sorted { $0.key < $1.key }.map { file, pieces in
            let lines = pieces.sorted { $0.key < $1.key }.map { "      \(jsonString($0)): \($1.json)" }
            return "    \(jsonString(file)): {\n\(lines.joined(separator: ",\n"))\n    }"
        }
        return "{\n  \"version\": 1,\n  \"files\": {\n\(files.joined(separator: ",\n"))\n  }\n}\n"
    }

    /// Reads the index of a folder.
    ///
    /// - Throws: what `FileContents` throws, `malformed`, `unsafeFileName`.
    init(folder: String) throws(FileError) {
        let path = "\(folder)/\(Self.fileName)"
        self = try FileContents(path: path, atMost: .max).withUnsafeBytes { text throws(FileError) in
            try StatePieceIndex(text, path: path)
        }
    }

    /// - Parameters:
    ///   - text: the whole file.
    ///   - path: its name, for messages.
    init(_ text: UnsafeRawBufferPointer, path: String) throws(FileError) {
        var files: [String: [String: Piece]]?
        do throws(JSONScanner.Fault) {
            var scanner = JSONScanner(text)
            var hasVersion = false
            var object = try scanner.beginObject()
            while let key = try scanner.nextKey(in: &object) {
                switch key {
                case "version" where !hasVersion:
                    let version = try scanner.wholeNumber("a version")
                    if version != 1 { throw scanner.fault("version \(version) is unknown, this program reads 1") }
                    hasVersion = true
                case "files" where files == nil: files = try Self.parseFiles(&scanner)
                default: throw scanner.fault("unknown or repeated key \(quoted(key))")
                }
            }
            try scanner.end()
            guard hasVersion, files != nil else { throw scanner.fault("needs 'version' and 'files'") }
        } catch {
            throw .malformed(path: path, offset: error.offset, reason: "index of pieces: \(error.reason)")
        }
        self.files = files ?? [:]
        for name in self.files.keys where !isPlainFileName(name) { throw .unsafeFileName(path: path, name: name) }
    }

    private static func parseFiles(
        _ scanner: inout JSONScanner
    ) throws(JSONScanner.Fault) -> [String: [String: Piece]] {
        var files: [String: [String: Piece]] = [:]
        var object = try scanner.beginObject()
        while let file = try scanner.nextKey(in: &object) {
            var pieces: [String: Piece] = [:]
            var tensors = try scanner.beginObject()
            while let tensor = try scanner.nextKey(in: &tensors) {
                if pieces.updateValue(try parsePiece(&scanner), forKey: tensor) != nil {
                    throw scanner.fault("the tensor \(quoted(tensor)) is there twice")
                }
            }
            if files.updateValue(pieces, forKey: file) != nil {
                throw scanner.fault("the file \(quoted(file)) is there twice")
            }
        }
        return files
    }

    private static func parsePiece(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) -> Piece {
        var lists: [String: [Int]] = [:]
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            guard ["shape", "shard", "elements"].contains(key), lists[key] == nil else {
                throw scanner.fault("unknown or repeated key \(quoted(key))")
            }
            var numbers: [Int] = []
            var array = try scanner.beginArray()
            while try scanner.nextElement(in: &array) {
                if numbers.count == 64 { throw scanner.fault("more than 64 numbers in '\(key)'") }
                numbers.append(try scanner.wholeNumber("a number of '\(key)'"))
            }
            lists[key] = numbers
        }
        guard let shape = lists["shape"], let elements = lists["elements"], elements.count == 2 else {
            throw scanner.fault("a piece needs 'shape', and 'elements' from and to")
        }
        guard let count = product(shape) else { throw scanner.fault("shape \(shape) has too many elements") }
        var held = count
        var shard: Shard?
        if let cut = lists["shard"] {
            guard cut.count == 3, cut[0] < shape.count, cut[1] < cut[2], cut[2] <= shape[cut[0]] else {
                throw scanner.fault("shard \(cut) is not the dimension, from and to of a part of shape \(shape)")
            }
            shard = Shard(dimension: cut[0], range: cut[1]..<cut[2])
            held = count / shape[cut[0]] * (cut[2] - cut[1])
        }
        guard elements[0] < elements[1], elements[1] <= held else {
            throw scanner.fault("elements \(elements) are not from and to of some of \(held)")
        }
        return Piece(shape: shape, shard: shard, elements: elements[0]..<elements[1])
    }

    /// The product of sizes, or nil if it overflows.
    private static func product(_ shape: [Int]) -> Int? {
        var product = 1
        for size in shape {
            let (next, overflow) = product.multipliedReportingOverflow(by: size)
            if overflow { return nil }
            product = next
        }
        return product
    }
}

extension StatePieceIndex.Piece {
    fileprivate var json: String {
        let cut = shard.map { ", \"shard\": \([$0.dimension, $0.range.lowerBound, $0.range.upperBound])" } ?? ""
        return "{\"shape\": \(shape)\(cut), \"elements\": \([elements.lowerBound, elements.upperBound])}"
    }
}
