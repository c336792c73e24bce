import ApusTensor
import Glibc

/// Compiled kernels on disk, named by all that they depend on.
///
/// A file appears whole or not at all, so any number of processes may fill the same folder at once. Where nothing can be
/// written, everything is compiled again.
struct KernelCache: Sendable {
    /// Where the files are; `nil` to keep nothing.
    let folder: String?

    /// `$XDG_CACHE_HOME/apus/kernels`, or the same below `~/.cache`.
    static var standard: KernelCache {
        func variable(_ name: String) -> String? {
            getenv(name).map { String(cString: $0) }.flatMap { $0.hasPrefix("/") ? $0 : nil }
        }
        let base = variable("XDG_CACHE_HOME") ?? variable("HOME").map { $0 + "/.cache" }
        return KernelCache(folder: base.map { $0 + "/apus/kernels" })
    }

    /// The name of the code of a file: a checksum of its text and the headers', the options and the compiler's version.
    static func name(
        of file: KernelFile, headers: [KernelFile], options: [String], compiler: LibraryVersion
    ) -> String {
        var hash = XXH64()
        for part in [file] + headers {
            // The zero at the end keeps texts apart that differ only in where one ends.
            hash.update(UnsafeRawBufferPointer(start: part.text, count: part.count + 1))
        }
        for option in options + ["\(compiler)"] { Array((option + "\0").utf8).withUnsafeBytes { hash.update($0) } }
        return "\(file.name.split(separator: ".")[0])-\(XXH64.hex(hash.value)).cubin"
    }

    /// The code of this name, if it is there.
    func read(_ name: String) -> [UInt8]? {
        guard let folder, let file = fopen("\(folder)/\(name)", "re") else { return nil }
        defer { fclose(file) }
        guard fseek(file, 0, SEEK_END) == 0 else { return nil }
        let size = ftell(file)
        guard size > 0, fseek(file, 0, SEEK_SET) == 0 else { return nil }
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            count = fread(buffer.baseAddress, 1, size, file)
        }
        return bytes.count == size ? bytes : nil
    }

    /// Keeps the code under this name; in vain where the folder cannot be written.
    func write(_ bytes: [UInt8], as name: String) {
        guard let folder else { return }
        var path = ""
        for part in folder.split(separator: "/") {
            path += "/" + part
            mkdir(path, 0o755)
        }
        try? bytes.withUnsafeBytes { bytes throws(FileError) in
            var file = try AtomicFile(path: "\(folder)/\(name)")
            try file.write(bytes)
            try file.publish()
        }
    }
}
