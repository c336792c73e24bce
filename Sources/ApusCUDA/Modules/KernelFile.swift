import CApusCUDA

/// The text of a kernel file, embedded in the program.
struct KernelFile: Sendable {
    /// `rmsnorm.cu`.
    let name: String
    /// Its bytes, ended by a zero.
    nonisolated(unsafe) let text: UnsafePointer<CChar>
    /// Bytes without the zero.
    let count: Int
    /// Whether it is included by others rather than compiled.
    let isHeader: Bool

    /// What the file is compiled for on a device of this compute capability; `nil` where it is not for that device.
    ///
    /// A name that ends in `_sm90a` is for exactly that architecture, all others are for any.
    func architecture(for capability: LibraryVersion) -> String? {
        let device = "sm_\(capability.major)\(capability.minor)"
        let words = name.prefix { $0 != "." }.split(separator: "_")
        guard let last = words.last, last.hasPrefix("sm"), last.hasSuffix("a") else { return device }
        return "sm_\(last.dropFirst(2))" == device + "a" ? device + "a" : nil
    }

    /// All of them.
    static let all: [KernelFile] = {
        var count = 0
        let files = apus_kernel_files(&count)
        return (0..<count).map { index in
            let file = files[index]
            return KernelFile(
                name: String(cString: file.name), text: file.text, count: file.count, isHeader: file.is_header != 0)
        }
    }()
}
