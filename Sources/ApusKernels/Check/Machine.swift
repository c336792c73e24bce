import ApusTensor
import CApusKernels
import Glibc

/// What this machine has for the CPU backend.
public struct Machine: Sendable {
    /// The processor's own name; empty when the system does not tell.
    public let processor: String
    /// Cores that this process may use.
    public let cores: Int
    /// Vector instruction sets that the kernels use, the widest last.
    public let vectorUnits: [String]
    /// Bytes of memory; 0 when the system does not tell.
    public let memory: Int
    /// Bytes that new work can have; 0 when the system does not tell.
    public let availableMemory: Int
    /// Whether oneDNN was found.
    public let hasOneDNN: Bool
    /// The version of oneDNN, or why there is none.
    public let oneDNN: String

    /// Looks at the machine.
    public init() {
        cores = ThreadPool.availableCores
        let features = apus_cpu_features()
        let names = [
            (UInt32(APUS_CPU_AVX2), "AVX2 + FMA"), (UInt32(APUS_CPU_AVX512), "AVX-512"),
            (UInt32(APUS_CPU_AVX512_BF16), "AVX-512 BF16"), (UInt32(APUS_CPU_AMX_BF16), "AMX BF16"),
        ]
        vectorUnits = names.filter { features & $0.0 != 0 }.map(\.1)
        processor = Machine.field("model name", of: "/proc/cpuinfo") ?? ""
        memory = Machine.kibibytes("MemTotal")
        availableMemory = Machine.kibibytes("MemAvailable")
        var text = [CChar](repeating: 0, count: 256)
        hasOneDNN = apus_onednn_version(&text, text.count) != 0
        oneDNN = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func kibibytes(_ name: String) -> Int {
        field(name, of: "/proc/meminfo").flatMap { Int($0.prefix { $0.isNumber }) }.map { $0 << 10 } ?? 0
    }

    /// The value of the first line `name : value` of a file.
    private static func field(_ name: String, of path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 4096)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(
                decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard let colon = text.firstIndex(of: ":"), text.hasPrefix(name) else { continue }
            return String(text[text.index(after: colon)...].drop { $0 == " " || $0 == "\t" })
        }
        return nil
    }
}
