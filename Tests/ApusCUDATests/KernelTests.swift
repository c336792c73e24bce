import ApusTensor
import ApusTestSupport
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `Kernels on disk` {
        private let folder: ScratchFolder

        init() throws {
            FakeDriver.reset()
            FakeCompiler.reset()
            folder = try ScratchFolder()
        }

        private let headers = [FakeCompiler.file("types.cuh", "types", isHeader: true)]
        private let sources = ["a.cu", "b.cu", "c.cu"].map { FakeCompiler.file($0, "text of \($0)", isHeader: false) }

        private func library(_ cache: KernelCache? = nil) throws -> KernelLibrary {
            try KernelLibrary(
                FakeDriver.context(), compiler: KernelCompiler(functions: FakeCompiler.table),
                cache: cache ?? KernelCache(folder: folder.file("deep/kernels")), files: headers + sources,
                names: { $0.starts(with: "Code".utf8) ? .any : nil })
        }

        private var files: [String] { folderNames(folder.file("deep/kernels")) }

        @Test func `are compiled once`() throws {
            #expect(try library().compiledCount == 3)
            #expect(try library().compiledCount == 0)
            #expect(Set(FakeCompiler.state.withLock(\.compiled)) == ["a.cu", "b.cu", "c.cu"])
            #expect(files.count == 3)
        }

        @Test func `are compiled again when the code on disk does not load`() throws {
            _ = try library()
            try folder.write("deep/kernels/\(files[0])", text: "spoiled")
            #expect(try library().compiledCount == 1)
            #expect(try library().compiledCount == 0)
        }

        @Test func `are compiled every time where nothing can be written`() throws {
            let cache = KernelCache(folder: "/dev/null/kernels")
            #expect(try library(cache).compiledCount == 3 && library(cache).compiledCount == 3)
        }

        @Test func `survive writers at once`() throws {
            let cache = KernelCache(folder: folder.path)
            let bytes = [UInt8](repeating: 7, count: 100_000)
            ThreadPool(threadCount: 4).run(parts: 16) { _, _ in cache.write(bytes, as: "same.cubin") }
            #expect(cache.read("same.cubin") == bytes)
        }

        @Test func `have another name when anything that matters changes`() {
            func name(
                _ text: String = "x", header: String = "h", options: [String] = ["--gpu-architecture=sm_90"],
                compiler: LibraryVersion = LibraryVersion(13, 0)
            ) -> String {
                KernelCache.name(
                    of: FakeCompiler.file("a.cu", text, isHeader: false),
                    headers: [FakeCompiler.file("h.cuh", header, isHeader: true)], options: options, compiler: compiler)
            }
            let names = [
                name(), name("y"), name(header: "i"), name(options: ["--gpu-architecture=sm_80"]),
                name(compiler: LibraryVersion(12, 9)), name("xh", header: ""),
            ]
            #expect(Set(names).count == names.count && name() == names[0])
            #expect(names[0].hasPrefix("a-") && names[0].hasSuffix(".cubin"))
        }

        @Test func `that the compiler refuses are reported with its words`() throws {
            FakeCompiler.state.withLock { $0.refuses = true }
            do {
                _ = try library()
                Issue.record("the compiler refused")
            } catch {
                let text = "\(error)"
                #expect(text.contains("nvrtcCompileProgram of"))
                #expect(text.contains("NVRTC_ERROR_COMPILATION (6), line 3: expected a ';'"))
            }
        }

        @Test func `are asked of the module that has them, once`() throws {
            let library = try KernelLibrary(
                FakeDriver.context(), compiler: KernelCompiler(functions: FakeCompiler.table),
                cache: KernelCache(folder: nil), files: sources, names: { _ in .listed(["softmax"]) })
            _ = FakeDriver.takeCalls()
            for _ in 0..<2 { _ = try library.kernel("softmax") }
            #expect(FakeDriver.takeCalls("module_function") == ["module_function softmax"])
        }

        @Test func `have names that are told apart`() {
            let width = 64
            #expect(KernelName("top_k_64") == "top_k_\(width)" && KernelName("top_k_32") != "top_k_64")
            #expect("\(KernelName("rmsnorm_\("bf16")"))" == "rmsnorm_bf16")
            let names = ["", "a", "aa", "grouped_transposed_bf16", "grouped_transposed_bf1", "softmax_gate_backward"]
            #expect(Set(names.map { KernelName($0) }).count == names.count)
        }

        @Test func `are named by the code, and what is no code has none`() {
            let image = elf(["", ".shstrtab", ".text.first", ".nv.info.first", ".text.second_kernel"])
            guard case .listed(let names) = KernelNames(of: image) else { return #expect(Bool(false)) }
            #expect(names == ["first", "second_kernel"])
            #expect(KernelNames(of: Array("Code".utf8)) == nil)
            for count in [0, 63, 100, image.count - 1] {
                #expect(KernelNames(of: Array(image.prefix(count))) == nil, "\(count) bytes")
            }
            // Whatever a spoiled byte says, nothing beyond the file is read.
            for place in image.indices {
                for value in [0, 1, 0x7F, 0xFF] as [UInt8] {
                    var spoiled = image
                    spoiled[place] = value
                    _ = KernelNames(of: spoiled)
                }
            }
        }

        /// A file of sections of these names and nothing in them, the second of which holds the names.
        private func elf(_ names: [String]) -> [UInt8] {
            func bytes(_ value: Int, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(value >> (8 * $0) & 255) } }
            let strings = names.reduce(into: [UInt8]()) { $0 += Array($1.utf8) + [0] }
            let headersAt = 64 + strings.count
            var file = [0x7F] + Array("ELF".utf8) + [2, 1, 1] + bytes(0, 33) + bytes(headersAt, 8)
            file += bytes(0, 10) + bytes(64, 2) + bytes(names.count, 2) + bytes(1, 2) + strings
            var at = 0
            for name in names {
                file += bytes(at, 4) + bytes(0, 20) + bytes(64, 8) + bytes(strings.count, 8) + bytes(0, 24)
                at += name.utf8.count + 1
            }
            return file
        }

        @Test func `for one architecture are for no other`() {
            func architecture(_ name: String, _ major: Int, _ minor: Int) -> String? {
                FakeCompiler.file(name, "", isHeader: false).architecture(for: LibraryVersion(major, minor))
            }
            #expect(architecture("grouped_bf16.cu", 8, 0) == "sm_80")
            #expect(architecture("grouped_bf16.cu", 12, 0) == "sm_120")
            #expect(architecture("grouped_sm90a.cu", 9, 0) == "sm_90a")
            #expect(architecture("grouped_sm90a.cu", 8, 9) == nil)
            #expect(architecture("grouped_sm90a.cu", 10, 0) == nil)
        }

        @Test func `are embedded as they are in the tree`() throws {
            let path = try #require(repositoryRoot()) + "/Sources/ApusCUDA/Kernels"
            let names = folderNames(path).filter { $0.hasSuffix(".cu") || $0.hasSuffix(".cuh") }
            #expect(KernelFile.all.map(\.name) == names)
            for file in KernelFile.all {
                let text = UnsafeRawBufferPointer(start: file.text, count: file.count)
                #expect(try fileBytes("\(path)/\(file.name)").elementsEqual(text), "\(file.name)")
                #expect(file.isHeader == file.name.hasSuffix(".cuh"))
            }
        }
    }
}
