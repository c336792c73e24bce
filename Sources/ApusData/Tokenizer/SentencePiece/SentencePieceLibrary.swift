import Glibc

/// Functions of `libsentencepiece`, found when a model is opened.
///
/// The library has a C++ interface only. What is called here takes and gives numbers, pointers and text views, whose
/// passing the C++ ABI of x86-64 fixes (Itanium C++ ABI, section 3.1; System V ABI, section 3.2.3): a text view is its
/// length and its address in two registers, and a result with a destructor is written to an address given first.
struct SentencePieceLibrary {
    typealias Object = UnsafeMutableRawPointer
    /// A constructor or destructor.
    typealias Lifetime = @convention(c) (Object) -> Void
    /// A text's length and address; the result goes to the first argument.
    typealias TextCall = @convention(c) (Object, Object, Int, UnsafePointer<UInt8>?) -> Void
    typealias Number = @convention(c) (Object) -> Int32
    typealias NumberOf = @convention(c) (Object, Int32) -> Int32
    typealias TextOf = @convention(c) (Object, Int32) -> Object
    typealias Message = @convention(c) (Object) -> UnsafePointer<CChar>?

    let create: Lifetime
    let destroy: Lifetime
    let load: TextCall
    let encode: TextCall
    let pieceCount: Number
    let endID: Number
    let piece: TextOf
    /// 1 in the lowest byte for true.
    let isControl: NumberOf
    let isUnknown: NumberOf
    let isUnused: NumberOf
    let isByte: NumberOf
    let message: Message
    let destroyStatus: Lifetime
    let deallocate: Lifetime

    /// Names under which the library is looked for.
    static let names = ["libsentencepiece.so.0", "libsentencepiece.so"]
    /// What to do without it.
    static let advice = "Debian's package libsentencepiece0, or the model's tokenizer.json instead"

    /// The library, or why it cannot be used.
    static let shared = Result { () throws(Missing) in try SentencePieceLibrary() }

    /// What is not there.
    struct Missing: Error {
        let reason: String
    }

    private init() throws(Missing) {
        #if arch(x86_64)
            guard let library = SentencePieceLibrary.names.lazy.compactMap({ dlopen($0, RTLD_NOW | RTLD_LOCAL) }).first
            else { throw Missing(reason: "not installed") }
            let processor = "_ZN13sentencepiece22SentencePieceProcessor"
            let reading = "_ZNK13sentencepiece22SentencePieceProcessor"
            let view = "ESt17basic_string_viewIcSt11char_traitsIcEE"
            create = try find(library, processor + "C1Ev")
            destroy = try find(library, processor + "D1Ev")
            load = try find(library, processor + "23LoadFromSerializedProto" + view)
            encode = try find(library, reading + "11EncodeAsIds" + view)
            pieceCount = try find(library, reading + "12GetPieceSizeEv")
            endID = try find(library, reading + "6eos_idEv")
            piece = try find(library, reading + "9IdToPieceB5cxx11Ei")
            isControl = try find(library, reading + "9IsControlEi")
            isUnknown = try find(library, reading + "9IsUnknownEi")
            isUnused = try find(library, reading + "8IsUnusedEi")
            isByte = try find(library, reading + "6IsByteEi")
            message = try find(library, "_ZNK13sentencepiece4util6Status13error_messageEv")
            destroyStatus = try find(library, "_ZN13sentencepiece4util6StatusD1Ev")
            // Of the C++ run time, which the library has loaded.
            deallocate = try find(library, "_ZdlPv")
        #else
            throw Missing(reason: "callable on x86-64 only")
        #endif
    }
}

/// A function by its name in the library.
private func find<Function>(
    _ library: UnsafeMutableRawPointer, _ name: String
) throws(SentencePieceLibrary.Missing) -> Function {
    guard let address = dlsym(library, name) else {
        throw .init(reason: "installed in a version without the function \(name)")
    }
    return unsafeBitCast(address, to: Function.self)
}
