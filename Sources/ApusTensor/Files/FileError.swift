/// What can go wrong with the files of a checkpoint.
///
/// Every case carries the path it is about; `description` says what was wrong, where, and what would work.
public enum FileError: Error, Hashable, Sendable {
    /// Nothing has this name.
    case notFound(path: String)
    /// The name leads to something of the wrong kind: `found` is "a folder", "a symbolic link" and so on.
    case wrongKind(path: String, found: String, wanted: String)
    /// The system refused access during `operation`.
    case permissionDenied(path: String, operation: String)
    /// The storage, a quota or a size limit is used up. `free` is in bytes where the system told it.
    case noSpace(path: String, operation: String, free: Int?, reason: String)
    /// Any other system error.
    case system(path: String, operation: String, code: Int32)
    /// The target of a publication is there already.
    case alreadyExists(path: String)
    /// Another writer holds the temporary name, or left it where the file system keeps no locks.
    case busy(path: String, temporary: String)
    /// The file ends before `what`.
    case truncated(path: String, what: String, bytes: Int, needed: Int)
    /// The header, index or manifest is not what its format allows; `offset` counts from the start of the file.
    case malformed(path: String, offset: Int?, reason: String)
    /// A tensor's entry contradicts itself, its neighbours or the data.
    case invalidTensor(path: String, tensor: String, reason: String)
    /// The stored format is not one of those the caller can use.
    case unsupportedDType(path: String, tensor: String, found: String, readable: String)
    /// A stored number does not fit the type asked for.
    case valueOutOfRange(path: String, tensor: String, element: Int, value: Int64)
    /// A tensor was asked for that is not there; `known` holds a few names that are.
    case noSuchTensor(path: String, tensor: String, known: [String])
    /// The index names a shard that is not in the folder.
    case missingShard(index: String, shard: String, tensor: String)
    /// The index places a tensor in a shard that does not hold it.
    case notInShard(index: String, shard: String, tensor: String)
    /// A shard holds a tensor that the index does not place there.
    case notInIndex(index: String, shard: String, tensor: String)
    /// A name from an index or manifest, or one given by the caller, is not a plain file name.
    case unsafeFileName(path: String, name: String)
    /// The writer was called out of order, with too many bytes, or closed too early.
    case writeOutOfOrder(path: String, reason: String)
    /// A file has another size than the manifest says.
    case wrongSize(path: String, expected: Int, found: Int)
    /// A file has another checksum than the manifest says.
    case wrongChecksum(path: String, expected: UInt64, found: UInt64)
}
