import ApusTestSupport
import Testing

@testable import ApusTensor

@Suite struct `The memory that a process may use` {
    @Test func `is some, and no more than the machine has`() {
        #expect(CachingAllocator.physicalMemory > 1 << 20)
        #expect(CachingAllocator.physicalMemory <= (CachingAllocator.controlGroupLimit() ?? .max))
    }

    @Test(
        arguments: [
            // Version 2: the lowest on the way up counts, and "max" is no limit.
            ("0::/a/b\n", ["a/b/memory.max": "max\n", "a/memory.max": "1000\n", "memory.max": "3000\n"], 1000),
            ("0::/a/b\n", ["a/b/memory.max": "500\n", "a/memory.max": "1000\n"], 500),
            // A container that sees its own group as the root.
            ("0::/docker/x\n", ["memory.max": "2000\n"], 2000), ("0::/\n", ["memory.max": "2000\n"], 2000),
            ("0::/\n", ["memory.max": "max\n"], nil), ("0::/\n", [:], nil),
            // Version 1, among other controllers.
            (
                "5:cpu,cpuacct:/c\n4:memory:/m:x\n",
                ["memory/m:x/memory.limit_in_bytes": "700\n", "memory.max": "1\n"],
                700
            ),
            (
                "4:memory:/m\n0::/\n",
                ["memory/memory.limit_in_bytes": "9223372036854771712\n", "memory.max": "800\n"], 800
            ),
        ] as [(String, [String: String], Int?)])
    func `is what its control groups allow`(membership: String, files: [String: String], limit: Int?) throws {
        let scratch = try ScratchFolder()
        try write("proc/self/cgroup", membership, in: scratch)
        for (name, text) in files.sorted(by: { $0.key < $1.key }) {
            try write("sys/fs/cgroup/\(name)", text, in: scratch)
        }
        #expect(CachingAllocator.controlGroupLimit(root: scratch.path) == limit)
    }

    private func write(_ name: String, _ text: String, in scratch: ScratchFolder) throws {
        let parts = name.split(separator: "/")
        for count in 1..<parts.count {
            let folder = parts[..<count].joined(separator: "/")
            let parent = count == 1 ? scratch.path : scratch.file(parts[..<(count - 1)].joined(separator: "/"))
            if !folderNames(parent).contains(String(parts[count - 1])) { try scratch.makeFolder(folder) }
        }
        try scratch.write(name, text: text)
    }

    @Test func `is unknown without control groups`() throws {
        #expect(CachingAllocator.controlGroupLimit(root: try ScratchFolder().path) == nil)
    }
}
