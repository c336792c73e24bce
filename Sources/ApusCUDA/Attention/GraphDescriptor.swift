import ApusTensor
import CApusDrivers

/// One descriptor of cuDNN's: a tensor, an operation, a graph or a plan, with its attributes.
// Sendable: nothing changes once it is finished, and cuDNN only reads it then.
final class GraphDescriptor: @unchecked Sendable {
    let handle: apus_dnn_descriptor
    private let library: AttentionLibrary
    /// What it describes, for messages.
    private let name: String
    /// What it points to.
    private var parts: [GraphDescriptor] = []
    private var contents = XXH64()

    init(_ kind: Int32, _ name: String, _ library: AttentionLibrary) throws(CUDAError) {
        self.library = library
        self.name = name
        var created: apus_dnn_descriptor?
        try library.check(
            library.functions.descriptor_create(kind, &created), "cudnnBackendCreateDescriptor of \(name)")
        guard let created else { preconditionFailure("cudnnBackendCreateDescriptor made none") }
        handle = created
        digest([Int64(kind)])
    }

    /// A checksum of everything that was set, in what it points to as well; addresses and the library's handle aside.
    var checksum: UInt64 { contents.value }

    private func digest<Value>(_ values: [Value]) { values.withUnsafeBytes { contents.update($0) } }

    deinit { _ = library.functions.descriptor_destroy(handle) }

    /// Ends the description; it is checked as a whole.
    func finish() throws(CUDAError) {
        try library.check(library.functions.descriptor_finish(handle), "cudnnBackendFinalize of \(name)")
    }

    func set(_ attribute: Int32, _ integers: [Int]) throws(CUDAError) {
        try set(attribute, APUS_DNN_VALUE_I64, integers.count, integers)
        digest([Int(attribute)] + integers)
    }

    func set(_ attribute: Int32, _ flag: Bool) throws(CUDAError) {
        try set(attribute, APUS_DNN_VALUE_BOOLEAN, 1, [UInt8(flag ? 1 : 0)])
        digest([attribute, flag ? 1 : 0])
    }

    /// A value of an enumeration.
    func set(_ attribute: Int32, _ code: Int32, of type: Int32) throws(CUDAError) {
        try set(attribute, type, 1, [code])
        digest([attribute, code])
    }

    func set(_ attribute: Int32, _ descriptors: GraphDescriptor...) throws(CUDAError) {
        try set(attribute, descriptors)
    }

    func set(_ attribute: Int32, _ descriptors: [GraphDescriptor]) throws(CUDAError) {
        try set(attribute, APUS_DNN_VALUE_DESCRIPTOR, descriptors.count, descriptors.map(\.handle))
        digest([UInt64(attribute)] + descriptors.map(\.checksum))
        parts += descriptors
    }

    func set(_ attribute: Int32, _ pointers: [UnsafeMutableRawPointer?]) throws(CUDAError) {
        try set(attribute, APUS_DNN_VALUE_POINTER, pointers.count, pointers)
    }

    func set(_ attribute: Int32, text: [UInt8]) throws(CUDAError) {
        try set(attribute, APUS_DNN_VALUE_CHARACTERS, text.count, text)
    }

    /// The library's handle, which graphs and plans are made with.
    func setHandle(_ attribute: Int32) throws(CUDAError) {
        try set(attribute, APUS_DNN_VALUE_HANDLE, 1, [library.handle])
    }

    private func set<Value>(_ attribute: Int32, _ type: Int32, _ count: Int, _ values: [Value]) throws(CUDAError) {
        let code = values.withUnsafeBytes { bytes in
            // An empty array has no address, and an empty attribute is no use to anybody.
            bytes.baseAddress.map { library.functions.descriptor_set(handle, attribute, type, Int64(count), $0) } ?? 0
        }
        try library.check(code, "cudnnBackendSetAttribute \(attribute) of \(name)")
    }

    func integer(_ attribute: Int32) throws(CUDAError) -> Int {
        var (value, count) = (Int64(0), Int64(0))
        try library.check(
            library.functions.descriptor_get(handle, attribute, APUS_DNN_VALUE_I64, 1, &count, &value),
            "cudnnBackendGetAttribute \(attribute) of \(name)")
        return Int(value)
    }

    func text(_ attribute: Int32) throws(CUDAError) -> [UInt8] {
        var count = Int64(0)
        let type = APUS_DNN_VALUE_CHARACTERS
        let call = "cudnnBackendGetAttribute \(attribute) of \(name)"
        try library.check(library.functions.descriptor_get(handle, attribute, type, 0, &count, nil), call)
        var bytes = [UInt8](repeating: 0, count: Int(count))
        try library.check(library.functions.descriptor_get(handle, attribute, type, count, &count, &bytes), call)
        return Array(bytes.prefix(Int(count)))
    }

    /// The descriptors that an attribute holds, filled into new ones of `kind`.
    func descriptors(_ attribute: Int32, of kind: Int32, _ name: String) throws(CUDAError) -> [GraphDescriptor] {
        var count = Int64(0)
        let type = APUS_DNN_VALUE_DESCRIPTOR
        let call = "cudnnBackendGetAttribute \(attribute) of \(self.name)"
        try library.check(library.functions.descriptor_get(handle, attribute, type, 0, &count, nil), call)
        var results: [GraphDescriptor] = []
        for _ in 0..<count { results.append(try GraphDescriptor(kind, name, library)) }
        var handles = results.map(\.handle)
        try library.check(library.functions.descriptor_get(handle, attribute, type, count, &count, &handles), call)
        return Array(results.prefix(Int(count)))
    }
}
