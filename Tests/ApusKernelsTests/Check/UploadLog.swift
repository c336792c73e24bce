import ApusTensor
import Synchronization

/// What was uploaded to each storage last: what an output holds before an op writes to it.
final class UploadLog: Sendable {
    /// Without a storage once that is gone, for another may get its identity.
    private struct Upload {
        weak var storage: Storage?
        let start: Int
        let bytes: [UInt8]
    }

    private let uploads = Mutex<[ObjectIdentifier: Upload]>([:])

    func remember(_ bytes: UnsafeRawBufferPointer, in tensor: Tensor) {
        let upload = Upload(storage: tensor.storage, start: tensor.byteOffset, bytes: Array(bytes))
        uploads.withLock { $0[ObjectIdentifier(tensor.storage)] = upload }
    }

    /// The bytes that an element had; `nil` where nothing was uploaded there.
    func bytes(of tensor: Tensor, element: Int) -> [UInt8]? {
        uploads.withLock { uploads in
            guard let upload = uploads[ObjectIdentifier(tensor.storage)], upload.storage === tensor.storage else {
                return nil
            }
            let first = tensor.byteOffset + tensor.dtype.byteCount(elements: element) - upload.start
            let range = first..<first + tensor.dtype.byteCount
            return upload.bytes.indices.contains(range.lowerBound) && range.upperBound <= upload.bytes.count
                ? Array(upload.bytes[range]) : nil
        }
    }
}
