import ApusTensor
import Synchronization

/// Which tensors of sequence boundaries have sequences of one length, so that an op may know it without asking the device.
///
/// The host uploads boundaries, and this remembers the uploads. It is told of every other write to whole tensors of
/// integers; kernels that write some make new ones.
final class EqualLengths: Sendable {
    /// S sequences of `length` tokens each.
    struct Sequences: Equatable, Sendable {
        var sequences: Int
        var length: Int
    }

    /// What was uploaded, and where; without a storage once that is gone, for another may get its identity.
    private struct Upload {
        weak var storage: Storage?
        let byteOffset: Int
        let found: Sequences
    }

    private let uploads = Mutex<[ObjectIdentifier: Upload]>([:])
    /// Beyond this many, those whose tensors are gone are forgotten.
    private static let limit = 256

    /// Remembers the elements `bytes` of `tensor`, if they are boundaries of equal sequences.
    func remember(_ bytes: UnsafeRawBufferPointer, in tensor: Tensor) {
        guard tensor.dtype == .i32 else { return }
        let values = bytes.bindMemory(to: Int32.self)
        guard values.count == tensor.count, let found = EqualLengths.sequences(values) else { return forget(tensor) }
        let upload = Upload(storage: tensor.storage, byteOffset: tensor.byteOffset, found: found)
        uploads.withLock { uploads in
            if uploads.count >= EqualLengths.limit { uploads = uploads.filter { $0.value.storage != nil } }
            uploads[ObjectIdentifier(tensor.storage)] = upload
        }
    }

    /// Forgets a tensor that is written by other means.
    func forget(_ tensor: Tensor) {
        guard tensor.dtype == .i32 else { return }
        uploads.withLock { _ = $0.removeValue(forKey: ObjectIdentifier(tensor.storage)) }
    }

    /// What is known of a tensor of boundaries.
    func sequences(of boundaries: Tensor) -> Sequences? {
        uploads.withLock { uploads in
            guard let upload = uploads[ObjectIdentifier(boundaries.storage)], upload.storage === boundaries.storage,
                upload.byteOffset == boundaries.byteOffset, upload.found.sequences == boundaries.count - 1
            else { return nil }
            return upload.found
        }
    }

    /// `0, n, 2 n, ...`: sequences of `n`.
    private static func sequences(_ values: UnsafeBufferPointer<Int32>) -> Sequences? {
        guard values.count >= 2, values[0] == 0, values[1] > 0 else { return nil }
        let length = Int(values[1])
        for index in 2..<max(values.count, 2) where Int(values[index]) != index * length { return nil }
        return Sequences(sequences: values.count - 1, length: length)
    }
}
