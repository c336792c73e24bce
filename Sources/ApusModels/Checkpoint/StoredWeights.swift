package import ApusKernels
import ApusNN
package import ApusTensor

/// The tensors of a model's folder under the names that they have in Apus, each read when it is asked for.
///
/// Of a Hugging Face folder a tensor may be a part of a stored one; the places were found when the folder was opened.
package struct StoredWeights {
    /// The folder.
    package let path: String
    /// What its `config.json` says.
    package let configuration: ModelConfiguration
    /// Every tensor of the model, in the model's order.
    package let parameters: [ParameterDescription]
    private let tensors: ShardedSafetensors
    private let places: [String: (hubName: String, elements: Range<Int>)]

    /// Elements that are held in memory at once where they are not copied as they are: 8 MiB of them.
    private static let pieceCount = 1 << 21

    /// - Throws: ``FileError``; ``TensorMapError`` for tensors that are missing, left over or of another shape.
    package init(_ source: ModelFolder) throws {
        path = source.path
        configuration = source.configuration.configuration
        parameters = configuration.parameterInventory()
        tensors = try ShardedSafetensors(folder: source.path)
        let map = HubTensorMap(family: source.configuration.family, configuration: configuration)
        var places: [String: (hubName: String, elements: Range<Int>)] = [:]
        for placement in try map.placements(of: tensors.shards.flatMap { $0.entries.map { ($0.name, $0.shape) } }) {
            for slice in placement.slices { places[slice.name] = (placement.hubName, slice.elements) }
        }
        self.places = places
    }

    /// `bf16` when all tensors are, routers aside; else `f32`.
    package func commonType() throws(FileError) -> DType {
        for parameter in parameters where parameter.role != .router {
            if try entry(parameter.name).dtype != .bf16 { return .f32 }
        }
        return .bf16
    }

    /// The elements of a tensor of the model, flat, as `f32` or `bf16`.
    ///
    /// - Throws: ``FileError``; ``TensorError`` when memory runs out.
    package func elements(of name: String, backend: any Backend) throws -> Tensor {
        try elements(of: name, 0..<place(name).elements.count, backend)
    }

    /// Calls `body` with the bytes of some of a tensor's elements, piece by piece in their order, as elements of `type`.
    /// What is stored as that type is passed on where it lies in the file's mapping, and its memory let go of afterwards.
    ///
    /// - Throws: ``FileError``, ``TensorError`` when memory runs out; what `body` throws.
    package func forEachPiece(
        of name: String, _ elements: Range<Int>, as type: DType, backend: any Backend,
        _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        guard try entry(name).dtype == type else {
            return try forEachTensor(of: name, elements, as: type, backend: backend) {
                try backend.forEachPiece(of: $0, body)
            }
        }
        let size = type.byteCount(elements: Self.pieceCount)
        let bytes = try bytes(of: name, elements, type)
        for first in stride(from: 0, to: bytes.count, by: size) {
            let piece = bytes[first..<min(first + size, bytes.count)]
            try piece.withUnsafeBytes(body)
            piece.discard()
        }
    }

    /// Calls `body` with some of a tensor's elements, piece by piece in their order, flat and converted to `type`.
    ///
    /// - Throws: as ``forEachPiece(of:_:as:backend:_:)``.
    package func forEachTensor(
        of name: String, _ elements: Range<Int>, as type: DType, backend: any Backend, _ body: (Tensor) throws -> Void
    ) throws {
        for first in stride(from: elements.lowerBound, to: elements.upperBound, by: Self.pieceCount) {
            let part = first..<min(first + Self.pieceCount, elements.upperBound)
            try body(piece(of: name, part, as: type, backend: backend))
        }
    }

    /// The ranges of ``forEachTensor(of:_:as:backend:_:)`` over all of a tensor of `count` elements.
    package static func pieces(of count: Int) -> [Range<Int>] {
        stride(from: 0, to: count, by: pieceCount).map { $0..<min($0 + pieceCount, count) }
    }

    /// Some elements of a tensor, flat, converted to `type`.
    ///
    /// - Throws: ``FileError``; ``TensorError`` when memory runs out.
    package func piece(
        of name: String, _ elements: Range<Int>, as type: DType, backend: any Backend
    ) throws -> Tensor {
        let stored = try self.elements(of: name, elements, backend)
        guard stored.dtype != type else { return stored }
        let converted = try backend.empty(stored.shape, type, .workspace)
        try backend.convert(stored, into: converted)
        return converted
    }

    private func place(_ name: String) -> (hubName: String, elements: Range<Int>) {
        guard let place = places[name] else { preconditionFailure("every tensor of the model has its place") }
        return place
    }

    private func entry(_ name: String) throws(FileError) -> SafetensorsEntry {
        try tensors.entry(place(name).hubName)
    }

    private func bytes(of name: String, _ elements: Range<Int>, _ type: DType) throws(FileError) -> FileBytes {
        let place = place(name)
        let first = place.elements.lowerBound + elements.lowerBound
        return try tensors.bytes(place.hubName)[
            type.byteCount(elements: first)..<type.byteCount(elements: first + elements.count)]
    }

    private func elements(of name: String, _ elements: Range<Int>, _ backend: any Backend) throws -> Tensor {
        let place = place(name)
        guard let dtype = try entry(name).dtype, dtype.isFloating else {
            // F16 and the like are widened exactly; what cannot be is refused by name.
            let values = try tensors.shard(of: place.hubName).floatValues(place.hubName)
            let first = place.elements.lowerBound + elements.lowerBound
            return try backend.tensor(
                Array(values[first..<first + elements.count]), Shape(elements.count), .workspace)
        }
        let target = try backend.empty(Shape(elements.count), dtype, .workspace)
        let bytes = try bytes(of: name, elements, dtype)
        try bytes.withUnsafeBytes { try backend.upload($0, into: target) }
        bytes.discard()
        return target
    }
}
