import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

/// Storage that is full or closed: typed errors, nothing left over, nothing lost.
@Suite struct StorageFaultTests {
    private static let spec = TensorSpec(name: "big", dtype: .f32, shape: [1 << 20])

    private static func writeBig(_ path: String) throws(FileError) {
        var writer = try SafetensorsWriter(path: path, tensors: [spec])
        try writer.append([Float](repeating: 1, count: 1 << 20))
        try writer.finish()
    }

    @Test func sizeLimit() async throws {
        let folder = try ScratchFolder()
        let path = try folder.write("m.safetensors", text: "old")
        await #expect(processExitsWith: .success) { [path = path as String] in
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 1 << 20, rlim_max: 1 << 20)
            setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
            do throws(FileError) {
                try Self.writeBig(path)
                exit(1)
            } catch .noSpace(_, let operation, _, let reason) {
                exit(operation == "writing" && reason.contains("size limit") ? 0 : 2)
            } catch {
                exit(3)
            }
        }
        #expect(try folder.names == ["m.safetensors"])
        #expect(try fileBytes(path) == Array("old".utf8))
    }

    @Test(.enabled(if: TinyFileSystem.isAvailable, "needs the right to mount a tmpfs"))
    func fullDisk() throws {
        let disk = try #require(TinyFileSystem(bytes: 2 << 20))
        try AtomicFile.write("old", to: disk.path + "/m.safetensors")
        let error = #expect(throws: FileError.self) { try Self.writeBig(disk.path + "/m.safetensors") }
        guard case .noSpace(_, _, let free?, _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(free < 2 << 20)
        #expect(try FolderTree.names(in: disk.path) == ["m.safetensors"])
        #expect(try fileBytes(disk.path + "/m.safetensors") == Array("old".utf8))

        let checkpoint = try AtomicDirectory(path: disk.path + "/step-1")
        let staging = checkpoint.stagingPath
        #expect(throws: FileError.self) { try Self.writeBig(staging + "/model.safetensors") }
        _ = consume checkpoint
        #expect(try FolderTree.names(in: disk.path) == ["m.safetensors"])
        // A process that another test is starting may hold the removed file open for a moment longer.
        for _ in 0..<500 where freeBytes(disk.path) < 1 << 20 { usleep(10_000) }
        try AtomicFile.write("there is room again", to: disk.path + "/m.safetensors")
    }

    private func freeBytes(_ path: String) -> Int {
        var status = statvfs()
        return statvfs(path, &status) == 0 ? Int(status.f_bavail) * Int(status.f_frsize) : 0
    }

    @Test(.enabled(if: geteuid() == 0, "needs to give up root"))
    func closedFolder() async throws {
        let folder = try ScratchFolder()
        chmod(folder.path, 0o755)
        try folder.write("secret", text: "x")
        chmod(folder.file("secret"), 0o600)
        await #expect(processExitsWith: .success) { [path = folder.path as String] in
            guard setegid(65534) == 0, seteuid(65534) == 0 else { exit(9) }
            func isDenied(_ body: () throws(FileError) -> Void) -> Bool {
                do throws(FileError) { try body() } catch .permissionDenied { return true } catch {}
                return false
            }
            let write = isDenied { () throws(FileError) in try AtomicFile.write("y", to: path + "/f") }
            let make = isDenied { () throws(FileError) in try AtomicDirectory(path: path + "/d").publish() }
            let open = isDenied { () throws(FileError) in _ = try MappedFile(path: path + "/secret") }
            exit(write && make && open ? 0 : 1)
        }
        #expect(try folder.names == ["secret"])
    }
}

extension SafetensorsWriter {
    /// Writes the tensor "big".
    fileprivate mutating func append(_ values: [Float]) throws(FileError) {
        try values.withUnsafeBufferPointer { values throws(FileError) in
            try append(UnsafeRawBufferPointer(values), to: "big")
        }
    }
}
