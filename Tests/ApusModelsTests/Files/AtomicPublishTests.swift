import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

@Suite struct AtomicPublishTests {
    @Test func fileReplacesOnlyWhenPublished() throws {
        let folder = try ScratchFolder()
        let path = try folder.write("f", text: "old")
        do {
            var file = try AtomicFile(path: path)
            try file.write("half of the new")
            #expect(try fileBytes(path) == Array("old".utf8))
            #expect(try folder.names == ["f", "f.tmp-\(getpid())"])
        }
        #expect(try folder.names == ["f"])
        let digest = try AtomicFile.write("new", to: path)
        #expect(try fileBytes(path) == Array("new".utf8))
        #expect(try digest == FileDigest(ofFile: path))
        #expect(try folder.names == ["f"])
    }

    @Test func folderAppearsWhole() throws {
        let folder = try ScratchFolder()
        let target = folder.file("step-1")
        let new = try AtomicDirectory(path: target + "/")
        try AtomicFile.write("a", to: new.stagingPath + "/a")
        mkdir(new.stagingPath + "/inner", 0o755)
        try AtomicFile.write("b", to: new.stagingPath + "/inner/b")
        #expect(try FolderTree.kind(target) == nil)
        try new.publish()
        #expect(try FolderTree.names(in: target) == ["a", "inner"])
        #expect(try fileBytes(target + "/inner/b") == Array("b".utf8))
        #expect(try folder.names == ["step-1"])
    }

    @Test func existingFolderIsKeptOrReplacedWhole() throws {
        let folder = try ScratchFolder()
        let target = folder.file("step-1")
        func publish(_ text: String, _ existing: AtomicDirectory.ExistingFolder) throws {
            let new = try AtomicDirectory(path: target)
            try AtomicFile.write(text, to: new.stagingPath + "/\(text)")
            try new.publish(existing)
        }
        try publish("first", .replace)
        #expect(throws: FileError.alreadyExists(path: target)) { try publish("second", .keep) }
        #expect(try FolderTree.names(in: target) == ["first"])
        #expect(try folder.names == ["step-1"])
        try publish("third", .replace)
        #expect(try FolderTree.names(in: target) == ["third"])
        #expect(try folder.names == ["step-1"])
    }

    @Test func emptyFolderOfTheNameIsKept() throws {
        let folder = try ScratchFolder()
        let target = try folder.makeFolder("step-1")
        let new = try AtomicDirectory(path: target)
        do throws(FileError) {
            try new.publish()
            Issue.record("published over an existing folder")
        } catch {
            #expect(error == .alreadyExists(path: target))
        }
        #expect(try folder.names == ["step-1"])
    }

    @Test func droppedFolderIsRemovedAndLinksAreNotFollowed() throws {
        let folder = try ScratchFolder()
        let precious = try folder.makeFolder("precious")
        try AtomicFile.write("keep", to: precious + "/data")
        do {
            let new = try AtomicDirectory(path: folder.file("step-1"))
            symlink(precious, new.stagingPath + "/link")
            try AtomicFile.write("a", to: new.stagingPath + "/a")
        }
        #expect(try folder.names == ["precious"])
        #expect(try FolderTree.names(in: precious) == ["data"])
    }

    @Test func secondWriterOfOneNameIsRefused() throws {
        let folder = try ScratchFolder()
        var first = try AtomicFile(path: folder.file("f"))
        let temporary = folder.file("f.tmp-\(getpid())")
        #expect(throws: FileError.busy(path: folder.file("f"), temporary: temporary)) {
            try AtomicFile.write("second", to: folder.file("f"))
        }
        try first.write("first")
        try first.publish()
        #expect(try fileBytes(folder.file("f")) == Array("first".utf8))
        let directory = try AtomicDirectory(path: folder.file("d"))
        #expect(throws: FileError.self) { try AtomicDirectory(path: folder.file("d")).publish() }
        try directory.publish()
        #expect(try folder.names == ["d", "f"])
    }

    @Test func namesOfOtherThingsAreRefused() throws {
        let folder = try ScratchFolder()
        try folder.write("f", text: "x")
        symlink(folder.file("f"), folder.file("link"))
        let inner = try folder.makeFolder("inner")
        for path in [inner, folder.file("link"), "/dev/null"] {
            let error = #expect(throws: FileError.self) { try AtomicFile.write("y", to: path) }
            guard case .wrongKind = error else {
                Issue.record("\(path): \(String(describing: error))")
                continue
            }
        }
        for path in [folder.file("f"), folder.file("link")] {
            let error = #expect(throws: FileError.self) { try AtomicDirectory(path: path).publish() }
            guard case .wrongKind = error else {
                Issue.record("\(path): \(String(describing: error))")
                continue
            }
        }
        for path in ["", "/", "..", folder.file(".."), folder.file("f/x"), folder.file("none/x")] {
            #expect(throws: FileError.self) { try AtomicFile.write("y", to: path) }
            #expect(throws: FileError.self) { try AtomicDirectory(path: path).publish() }
        }
        #expect(try folder.names == ["f", "inner", "link"])
        #expect(try fileBytes(folder.file("f")) == Array("x".utf8))
    }
}
