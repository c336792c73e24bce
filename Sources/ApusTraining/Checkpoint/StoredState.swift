import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor

/// The optimizer's state in a checkpoint, whoever wrote it: one rank whole, or several ranks in pieces.
///
/// What a rank asks for is put together from the stored pieces that overlap it; nothing else is read.
final class StoredState {
    private let folder: String
    /// What messages name as the place that says where tensors are.
    private let index: String
    /// By state, the pieces and their files; `nil` where each state is whole.
    private let pieces: [String: [(file: String, piece: StatePieceIndex.Piece)]]?
    private let whole: ShardedSafetensors?
    private var files: [String: SafetensorsFile] = [:]

    /// Finds what is there in the folder of a checkpoint.
    ///
    /// - Throws: what ``StatePieceIndex`` and `ShardedSafetensors` throw.
    init(folder: String) throws(FileError) {
        self.folder = folder
        let path = "\(folder)/\(StatePieceIndex.fileName)"
        guard try FolderTree.kind(path) != nil else {
            (index, pieces) = (folder, nil)
            whole = try ShardedSafetensors(folder: folder, base: "optimizer")
            return
        }
        var pieces: [String: [(file: String, piece: StatePieceIndex.Piece)]] = [:]
        for (file, tensors) in try StatePieceIndex(folder: folder).files.sorted(by: { $0.key < $1.key }) {
            for (name, piece) in tensors { pieces[name, default: []].append((file, piece)) }
        }
        (index, whole, self.pieces) = (path, nil, pieces)
    }

    /// Elements that a stored piece and the wanted one have in common.
    private struct Segment {
        /// Where they are in what is wanted.
        let wanted: Range<Int>
        /// Where the first is in the stored tensor.
        let stored: Int
        let file: SafetensorsFile
    }

    /// Fills a piece of an optimizer's state, bit by bit as it was saved.
    ///
    /// - Throws: ``FileError``: `noSuchTensor`, `missingShard`, `invalidTensor` for another shape or type, for elements
    ///   that no piece holds and for those that two do; what the device's copies throw.
    func read(_ wanted: AdamW.StatePiece, backend: any Backend) throws {
        let target = wanted.tensor
        let segments = try segments(of: wanted)
        let size = target.dtype.byteCount(elements: 1)
        func withBytes(_ segment: Segment, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
            try segment.file.bytes(wanted.name).withUnsafeBytes { bytes in
                let first = segment.stored * size
                try body(UnsafeRawBufferPointer(rebasing: bytes[first..<first + segment.wanted.count * size]))
            }
        }
        if segments.count == 1 {
            return try withBytes(segments[0]) { try backend.upload($0, into: target) }
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: target.count * size, alignment: 64)
        defer { buffer.deallocate() }
        for segment in segments {
            try withBytes(segment) { bytes in
                let first = segment.wanted.lowerBound * size
                UnsafeMutableRawBufferPointer(rebasing: buffer[first..<first + bytes.count]).copyMemory(from: bytes)
            }
        }
        try backend.upload(UnsafeRawBufferPointer(buffer), into: target)
    }

    /// What fills `wanted`, in its order and without a gap.
    private func segments(of wanted: AdamW.StatePiece) throws(FileError) -> [Segment] {
        let shape = wanted.parameter.shape.dimensions
        let own = StatePieceIndex.Piece(shape: shape, shard: wanted.parameter.shard, elements: wanted.elements).runs
        var segments: [Segment] = []
        for (file, piece) in try stored(wanted.name, shape: shape) {
            guard piece.shape == shape else {
                throw .invalidTensor(
                    path: index, tensor: wanted.name, reason: "is of a parameter of shape \(piece.shape), not \(shape)")
            }
            let common = overlaps(own, piece.runs)
            guard !common.isEmpty else { continue }
            let file = try open(file, for: wanted.name)
            let entry = try file.entry(wanted.name)
            guard entry.dtype == wanted.tensor.dtype, entry.count == piece.elements.count else {
                throw .invalidTensor(
                    path: file.path, tensor: wanted.name,
                    reason: "is \(entry.stored) \(entry.shape) and not \(wanted.tensor.dtype) [\(piece.elements.count)]"
                )
            }
            segments += common.map { Segment(wanted: $0.wanted, stored: $0.stored, file: file) }
        }
        segments.sort { ($0.wanted.lowerBound, $0.file.path) < ($1.wanted.lowerBound, $1.file.path) }
        var end = 0
        for (place, segment) in segments.enumerated() {
            if segment.wanted.lowerBound < end {
                let twice = segment.wanted.lowerBound..<min(end, segment.wanted.upperBound)
                throw .invalidTensor(
                    path: segment.file.path, tensor: wanted.name,
                    reason: "has elements \(inWhole(twice, own)) of the whole, which "
                        + "\(quoted(splitPath(segments[place - 1].file.path).name)) has too")
            }
            if segment.wanted.lowerBound > end { throw hole(end..<segment.wanted.lowerBound, wanted, own) }
            end = segment.wanted.upperBound
        }
        if end < wanted.elements.count { throw hole(end..<wanted.elements.count, wanted, own) }
        return segments
    }

    private func hole(
        _ range: Range<Int>, _ wanted: AdamW.StatePiece, _ own: [(stored: Int, whole: Range<Int>)]
    ) -> FileError {
        .invalidTensor(
            path: index, tensor: wanted.name, reason: "has no piece with elements \(inWhole(range, own)) of the whole")
    }

    /// Where the first run of some elements is in the whole, for messages.
    private func inWhole(_ range: Range<Int>, _ own: [(stored: Int, whole: Range<Int>)]) -> Range<Int> {
        for run in own where range.lowerBound < run.stored + run.whole.count {
            let first = run.whole.lowerBound + range.lowerBound - run.stored
            return first..<min(first + range.count, run.whole.upperBound)
        }
        return range
    }

    /// The pieces of a state and the names of their files.
    private func stored(
        _ name: String, shape: [Int]
    ) throws(FileError) -> [(file: String, piece: StatePieceIndex.Piece)] {
        guard let pieces else {
            guard let whole else { return [] }
            let count = try whole.entry(name).count
            let file = try whole.shard(of: name)
            guard count == shape.reduce(1, *) else {
                throw .invalidTensor(
                    path: file.path, tensor: name, reason: "has \(count) elements and not those of shape \(shape)")
            }
            let key = splitPath(file.path).name
            files[key] = file
            return [(key, StatePieceIndex.Piece(shape: shape, shard: nil, elements: 0..<count))]
        }
        guard let found = pieces[name] else {
            throw .noSuchTensor(path: index, tensor: name, known: Array(pieces.keys.sorted().prefix(3)))
        }
        return found
    }

    private func open(_ name: String, for tensor: String) throws(FileError) -> SafetensorsFile {
        if let file = files[name] { return file }
        let path = "\(folder)/\(name)"
        if try FolderTree.kind(path) == nil { throw .missingShard(index: index, shard: name, tensor: tensor) }
        let file = try SafetensorsFile(path: path)
        files[name] = file
        return file
    }
}

/// Where two lists of runs of the whole, both ascending, have elements in common: in the order of the first.
private func overlaps(
    _ wanted: [(stored: Int, whole: Range<Int>)], _ stored: [(stored: Int, whole: Range<Int>)]
) -> [(wanted: Range<Int>, stored: Int)] {
    var result: [(wanted: Range<Int>, stored: Int)] = []
    var (left, right) = (0, 0)
    while left < wanted.count, right < stored.count {
        let (own, other) = (wanted[left], stored[right])
        let common = own.whole.clamped(to: other.whole)
        if !common.isEmpty {
            let first = own.stored + common.lowerBound - own.whole.lowerBound
            result.append(
                (first..<first + common.count, other.stored + common.lowerBound - other.whole.lowerBound))
        }
        if own.whole.upperBound <= other.whole.upperBound { left += 1 } else { right += 1 }
    }
    return result
}
