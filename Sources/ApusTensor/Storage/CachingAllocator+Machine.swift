import Glibc

extension CachingAllocator {
    /// Bytes of memory that this process may use: the machine's, or less where a control group holds it to less.
    public static var physicalMemory: Int {
        let machine = max(sysconf(Int32(_SC_PHYS_PAGES)), 1) * max(sysconf(Int32(_SC_PAGESIZE)), 4096)
        return min(machine, controlGroupLimit() ?? machine)
    }

    /// The lowest memory limit of this process's control group and of those above it; `nil` where none is readable.
    ///
    /// Both versions are asked, because a machine may have either: `memory.max` of version 2 and
    /// `memory.limit_in_bytes` of version 1. Inside a container the group's own path may be hidden and its files lie
    /// at the root, which the way up ends at.
    ///
    /// - Parameter root: The folder that holds `proc` and `sys`.
    static func controlGroupLimit(root: String = "") -> Int? {
        let membership = smallFile("\(root)/proc/self/cgroup") ?? ""
        var lowest: Int?
        for line in membership.split(separator: "\n") {
            // hierarchy:controllers:path; version 2 has no controllers.
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let isMemory = parts[1].split(separator: ",").contains("memory")
            guard parts[1].isEmpty || isMemory else { continue }
            let mount = "\(root)/sys/fs/cgroup" + (isMemory ? "/memory" : "")
            let name = isMemory ? "memory.limit_in_bytes" : "memory.max"
            var group = parts[2].split(separator: "/")
            while true {
                let folder = group.map { "/" + $0 }.joined()
                if let text = smallFile("\(mount)\(folder)/\(name)"),
                    let limit = Int(text.prefix { $0 != "\n" }), limit > 0
                {
                    lowest = min(lowest ?? limit, limit)
                }
                if group.popLast() == nil { break }
            }
        }
        return lowest
    }

    /// The text of a file of the system, of which 64 KiB are enough; `nil` if it cannot be read.
    private static func smallFile(_ path: String) -> String? {
        guard let file = fopen(path, "re") else { return nil }
        defer { fclose(file) }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 1 << 16) { buffer in
            let count = fread(buffer.baseAddress, 1, buffer.count, file)
            return String(decoding: buffer[..<count], as: UTF8.self)
        }
    }
}
