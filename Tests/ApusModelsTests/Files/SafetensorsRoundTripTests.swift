import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusModels

@Suite struct SafetensorsRoundTripTests {
    @Test func whatIsWrittenIsRead() throws {
        let folder = try ScratchFolder()
        let digest = try writeSample(to: folder.file("m.safetensors"), metadata: ["format": "pt", "k\"\u{1}": "é\\"])
        let file = try SafetensorsFile(path: folder.file("m.safetensors"))
        #expect(file.metadata == ["format": "pt", "k\"\u{1}": "é\\"])
        #expect(file.names == sampleSpecs.map(\.name))
        for spec in sampleSpecs {
            let entry = try file.entry(spec.name)
            #expect(entry.dtype == spec.dtype && entry.shape == spec.shape)
            #expect(entry.count == spec.shape.reduce(1, *))
            #expect(try file.bytes(spec.name).withUnsafeBytes { Array($0) } == sampleBytes(spec))
        }
        #expect(try file.entry("embed.weight").range.lowerBound % 8 == 0)
        #expect(try digest == FileDigest(ofFile: folder.file("m.safetensors")))
        #expect(try folder.names == ["m.safetensors"])
    }

    @Test func piecesGiveTheSameFileAsWholes() throws {
        let folder = try ScratchFolder()
        let digest = try writeSample(to: folder.file("a"))
        var writer = try SafetensorsWriter(path: folder.file("b"), tensors: sampleSpecs, metadata: ["format": "pt"])
        for spec in sampleSpecs {
            for byte in try sampleBytes(spec) { try withUnsafeBytes(of: byte) { try writer.append($0, to: spec.name) } }
        }
        #expect(try writer.finish() == digest)
        #expect(try fileBytes(folder.file("a")) == fileBytes(folder.file("b")))
    }

    @Test func bytesOutliveTheFileObject() throws {
        let folder = try ScratchFolder()
        try writeSample(to: folder.file("a"))
        let bytes = try SafetensorsFile(path: folder.file("a")).bytes("ids")
        unlink(folder.file("a"))
        #expect(try bytes.withUnsafeBytes { Array($0) } == sampleBytes(sampleSpecs[4]))
    }

    @Test func writerRefusesWrongOrderAndLength() throws {
        let folder = try ScratchFolder()
        let specs = [TensorSpec(name: "a", dtype: .u8, shape: [2]), TensorSpec(name: "b", dtype: .u8, shape: [1])]
        func attempt(_ calls: [(String, Int)]) throws {
            var writer = try SafetensorsWriter(path: folder.file("x"), tensors: specs)
            for (name, count) in calls {
                try [UInt8](repeating: 1, count: count).withUnsafeBytes { try writer.append($0, to: name) }
            }
            try writer.finish()
        }
        let wrong: [[(String, Int)]] = [
            [], [("a", 2)], [("b", 1)], [("a", 1), ("b", 1)], [("a", 3)], [("a", 2), ("b", 2)],
            [("a", 2), ("b", 1), ("a", 1)], [("a", 2), ("c", 1)], [("a", 2), ("b", 1), ("c", 0)],
        ]
        for calls in wrong {
            let error = #expect(throws: FileError.self) { try attempt(calls) }
            guard case .writeOutOfOrder = error else {
                Issue.record("\(calls): \(String(describing: error))")
                continue
            }
            #expect(try folder.names == [])
        }
        try attempt([("a", 1), ("a", 0), ("a", 1), ("b", 1)])
        #expect(try folder.names == ["x"])
    }

    @Test(arguments: [
        [TensorSpec(name: "a", dtype: .u8, shape: [1]), TensorSpec(name: "a", dtype: .u8, shape: [1])],
        [TensorSpec(name: "__metadata__", dtype: .u8, shape: [1])],
        [TensorSpec(name: "a", dtype: .f32, shape: [-1])],
        [TensorSpec(name: "a", dtype: .f32, shape: [1 << 40, 1 << 40])],
        [TensorSpec(name: "a", dtype: .u8, shape: [1 << 59]), TensorSpec(name: "b", dtype: .u8, shape: [1 << 62])],
        [TensorSpec(name: "a", dtype: .u8, shape: Array(repeating: 1, count: 65))],
    ])
    func impossibleTensorsAreRefused(_ specs: [TensorSpec]) throws {
        let folder = try ScratchFolder()
        let error = #expect(throws: FileError.self) {
            try SafetensorsWriter(path: folder.file("x"), tensors: specs).finish()
        }
        guard case .invalidTensor = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(try folder.names == [])
    }

    @Test func otherFormatsAreNamedAndConvertedOnRequest() throws {
        let folder = try ScratchFolder()
        let header =
            "{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},"
            + "\"w\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[8,24]}}"
        func file(_ last: Int64) throws -> SafetensorsFile {
            let halves: [UInt16] = [0x3C00, 0xC000, 0x0001, 0x7C00]
            let data = halves.withUnsafeBytes { Array($0) } + [Int64(-5), last].withUnsafeBytes { Array($0) }
            return try SafetensorsFile(path: folder.write("c", safetensors(header, data: 0) + data))
        }
        let good = try file(Int64(Int32.min))
        #expect(try good.floatValues("h") == [1, -2, 0x1p-24, .infinity])
        #expect(try good.int32Values("w") == [-5, .min])
        let error = #expect(throws: FileError.self) { try good.dtype("h") }
        #expect(error?.description.contains("tensor 'h' has dtype 'F16', Apus reads F32, BF16, I32, U8") == true)
        #expect(throws: FileError.self) { try good.int32Values("h") }
        #expect(throws: FileError.self) { try good.floatValues("w") }
        let path = folder.file("c")
        #expect(throws: FileError.valueOutOfRange(path: path, tensor: "w", element: 1, value: 1 << 31)) {
            try file(1 << 31).int32Values("w")
        }
        #expect(throws: FileError.noSuchTensor(path: path, tensor: "x", known: ["h", "w"])) {
            try good.bytes("x")
        }
    }

    @Test func everyHalfConvertsExactly() {
        for bits in UInt16.min...UInt16.max {
            let expected = Float(Float16(bitPattern: bits))
            let found = float(half: bits)
            #expect(found.bitPattern == expected.bitPattern || (found.isNaN && expected.isNaN))
        }
    }

    @Test func onlyFilesAreOpened() throws {
        let folder = try ScratchFolder()
        mkfifo(folder.file("pipe"), 0o600)
        #expect(throws: FileError.notFound(path: folder.file("none"))) {
            try SafetensorsFile(path: folder.file("none"))
        }
        #expect(throws: FileError.wrongKind(path: folder.path, found: "a folder", wanted: "a file")) {
            try SafetensorsFile(path: folder.path)
        }
        #expect(throws: FileError.wrongKind(path: folder.file("pipe"), found: "a pipe", wanted: "a file")) {
            try SafetensorsFile(path: folder.file("pipe"))
        }
        #expect(throws: FileError.wrongKind(path: "/dev/zero", found: "a device", wanted: "a file")) {
            try SafetensorsFile(path: "/dev/zero")
        }
        #expect(throws: FileError.notFound(path: folder.file("a\0b"))) {
            try MappedFile(path: folder.file("a\0b"))
        }
        let empty = try MappedFile(path: folder.write("empty", []))
        #expect(empty.count == 0 && empty.withUnsafeBytes(\.isEmpty))
        #expect(
            throws: FileError.truncated(
                path: folder.file("empty"), what: "the length of its header", bytes: 0, needed: 8)
        ) { try SafetensorsFile(path: folder.file("empty")) }
    }
}
