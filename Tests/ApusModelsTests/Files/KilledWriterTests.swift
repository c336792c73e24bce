import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

/// Writers that die at the worst moment.
@Suite struct KilledWriterTests {
    @Test func killBeforeTheRenameLeavesTheOldFolder() async throws {
        let folder = try ScratchFolder()
        let target = folder.file("step-1")
        let old = try AtomicDirectory(path: target)
        try AtomicFile.write("good", to: old.stagingPath + "/state")
        try old.publish()
        await #expect(processExitsWith: .signal(SIGKILL)) { [target = target as String] in
            let new = try AtomicDirectory(path: target)
            try AtomicFile.write("bad", to: new.stagingPath + "/state")
            var file = try AtomicFile(path: new.stagingPath + "/more")
            try file.write("half")
            kill(getpid(), SIGKILL)
            try file.publish()
            try new.publish(.replace)
        }
        #expect(try fileBytes(target + "/state") == Array("good".utf8))
        let left = try folder.names.filter { $0 != "step-1" }
        #expect(left.count == 1 && left[0].hasPrefix("step-1.tmp-"), "\(left)")
        #expect(try AbandonedFiles.remove(in: folder.path, prefix: "step-") == left)
        #expect(try folder.names == ["step-1"])
    }

    @Test func nextWriterClearsUpEvenUnderItsOwnProcessId() throws {
        let folder = try ScratchFolder()
        let mine = try folder.makeFolder("step-1.tmp-\(getpid())")
        try AtomicFile.write("half", to: mine + "/state")
        _ = try folder.makeFolder("step-1.tmp-1")
        try AtomicDirectory(path: folder.file("step-1")).publish()
        #expect(try folder.names == ["step-1"])
        try folder.write("f.tmp-\(getpid())", text: "half")
        try AtomicFile.write("whole", to: folder.file("f"))
        #expect(try folder.names == ["f", "step-1"])
    }

    @Test func clearingUpTouchesNothingElse() throws {
        let folder = try ScratchFolder()
        let names = ["step-1", "step-1.tmp-", "step-1.tmp-12x", "step-1.tmp", ".tmp-12", "other.tmp-12", "step-tmp-12"]
        for name in names { try folder.write(name, text: "keep") }
        symlink(folder.file("step-1"), folder.file("step-2.tmp-12"))
        mkfifo(folder.file("step-3.tmp-12"), 0o600)
        let live = try AtomicDirectory(path: folder.file("step-4"))
        let before = try folder.names
        #expect(try AbandonedFiles.remove(in: folder.path, prefix: "step-") == [])
        #expect(try folder.names == before)
        try folder.write("step-5.tmp-12", text: "half")
        #expect(try AbandonedFiles.remove(in: folder.path, prefix: "step-") == ["step-5.tmp-12"])
        #expect(try folder.names == before)
        try live.publish()
    }

    @Test func missingFolderIsNamed() {
        #expect(throws: FileError.notFound(path: "/nonexistent/x")) {
            try AbandonedFiles.remove(in: "/nonexistent/x", prefix: "")
        }
    }
}
