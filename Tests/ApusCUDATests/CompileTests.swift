import ApusKernels
import ApusTestSupport
import Foundation
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    /// The kernels of the tree, compiled by NVRTC to machine code; needs neither a device nor a driver.
    ///
    /// A file whose text, headers, options and compiler are those of an earlier run is not compiled again: its report is in
    /// `.build/kernels`.
    @Suite struct CompileTests {
        /// The folder of NVRTC's two libraries.
        private static let folder = ProcessInfo.processInfo.environment["APUS_NVRTC"]
        private static let isSoak = ProcessInfo.processInfo.environment["APUS_SOAK"] != nil

        /// What a file that is for any device is compiled for: the oldest that is served; with `APUS_SOAK`, newer ones too.
        private static let capabilities =
            [LibraryVersion(8, 0)] + (isSoak ? [hopper, LibraryVersion(10, 0), LibraryVersion(12, 0)] : [])
        private static let hopper = LibraryVersion(9, 0)

        /// Kernels that keep a little in local memory, with bytes of a thread: registers that do not fit, and the large
        /// arguments of sine and cosine.
        private static let knownStacks = [
            "attention_bf16_128": 24, "attention_key_gradient_bf16_256": 16, "rotary_table": 40,
        ]

        private static let needs: Comment = "needs NVRTC: set APUS_NVRTC to the folder of libnvrtc.so.13"

        @Test(.enabled(if: folder != nil, needs))
        func `every kernel compiles for the devices that its file is for, and fits in registers`() throws {
            let compiler = try loadCompiler(try #require(Self.folder))
            let headers = KernelFile.all.filter(\.isHeader)
            let jobs = KernelFile.all.filter { !$0.isHeader }.flatMap { file in
                let portable = Self.capabilities.compactMap(file.architecture(for:))
                return (portable.isEmpty ? [file.architecture(for: Self.hopper)].compactMap(\.self) : portable)
                    .map { Job(file: file, architecture: $0) }
            }
            #expect(Set(jobs.map(\.file.name)).count + headers.count == KernelFile.all.count, "a file is for no device")
            let cache = KernelCache(folder: try #require(repositoryRoot()) + "/.build/kernels")
            let outcomes = Mutex<[Int: Result<[KernelUse], any Error>]>([:])
            let start = ContinuousClock.now
            CompilerThreads.run(parts: jobs.count) { index in
                let result = Result { try KernelUse.read(jobs[index].report(compiler, headers: headers, cache: cache)) }
                outcomes.withLock { $0[index] = result }
            }
            print("NVRTC \(compiler.version): \(jobs.count) compilations in \(ContinuousClock.now - start)")
            var names: Set<String> = []
            for (index, job) in jobs.enumerated() {
                switch try #require(outcomes.withLock { $0[index] }) {
                case .failure(let error): Issue.record("\(job.file.name) for \(job.architecture): \(error)")
                case .success(let kernels):
                    #expect(!kernels.isEmpty, "\(job.file.name) for \(job.architecture) has no kernel")
                    names.formUnion(kernels.map(\.name))
                    for kernel in kernels {
                        #expect(
                            kernel.stack <= Self.knownStacks[kernel.name, default: 0],
                            "\(kernel.name) of \(job.file.name) for \(job.architecture), bytes of local memory")
                    }
                }
            }
            let missing = try askedKernels().subtracting(names)
            #expect(missing.isEmpty, "no file has these kernels, which ops ask for")
        }

        /// The names of all kernels that the checks of `apus doctor` launch, and that Hopper is asked for.
        private func askedKernels() throws -> Set<String> {
            FakeDriver.reset()
            FakeCompiler.reset()
            let backend = try FakeDriver.backend()
            // Nothing computes, so every check fails or finds numbers that are not its own.
            for check in OpCheck.all { _ = try? check.run(on: backend) }
            let names = Set(FakeDriver.state.withLock { $0.kernelNames.values })
            #expect(names.count > 100)
            return names
        }

        @Test(.enabled(if: folder != nil, needs))
        func `a kernel in local memory is noticed, and a wrong one refused with its file and line`() throws {
            let compiler = try loadCompiler(try #require(Self.folder))
            func uses(_ text: String) throws -> [KernelUse] {
                let file = FakeCompiler.file("wrong.cu", text, isHeader: false)
                return try KernelUse.read(
                    Job(file: file, architecture: "sm_80").report(
                        compiler, headers: [], cache: KernelCache(folder: nil)))
            }
            let deep = """
                extern "C" __global__ void deep(int *x) {
                    int a[64];
                    for (int i = 0; i < 64; i++) a[x[i] & 63] = i;
                    x[0] = a[x[1] & 63];
                }
                extern "C" __global__ void flat(int *x) { x[0] = 1; }
                """
            #expect(
                try Set(uses(deep)) == [KernelUse(name: "deep", stack: 256), KernelUse(name: "flat", stack: 0)])
            let file = FakeCompiler.file("deep.cu", deep, isHeader: false)
            let image = try compiler.compile(file, headers: [], architecture: "sm_90")
            guard case .listed(let names) = try #require(KernelNames(of: image)) else { return #expect(Bool(false)) }
            #expect(names == ["deep", "flat"], "names read from the code")
            do {
                _ = try uses("extern \"C\" __global__ void wrong() {\n missing(); }")
                Issue.record("the text was compiled")
            } catch {
                #expect("\(error)".contains("wrong.cu(2): error: identifier \"missing\" is undefined"))
            }
        }

        /// Loads the libraries of a folder, which the loader then finds by their names, wherever they are.
        private func loadCompiler(_ folder: String) throws -> KernelCompiler {
            let names = folderNames(folder)
            // The compiler opens its built-in functions by their name alone, so these come first.
            let libraries = ["libnvrtc-builtins.so.", "libnvrtc.so."].compactMap { prefix in
                names.last { $0.hasPrefix(prefix) }
            }
            try #require(
                libraries.count == 2, "APUS_NVRTC: \(folder) lacks NVRTC's libraries; run Scripts/setup.sh --test")
            for library in libraries {
                try #require(
                    dlopen("\(folder)/\(library)", RTLD_NOW | RTLD_LOCAL) != nil, "\(String(cString: dlerror()))")
            }
            let major = try #require(libraries[1].split(separator: ".").last.flatMap { Int($0) })
            return try KernelCompiler(for: LibraryVersion(major, 0))
        }
    }
}

/// A file to compile for an architecture.
private struct Job: Sendable {
    let file: KernelFile
    let architecture: String

    private static let options = ["--ptxas-options=-v"]

    /// What the compiler says of the code, from the cache or from compiling.
    func report(_ compiler: KernelCompiler, headers: [KernelFile], cache: KernelCache) throws -> String {
        let name = KernelCache.name(
            of: file, headers: headers, options: KernelCompiler.options(architecture) + Self.options,
            compiler: compiler.version)
        if let bytes = cache.read(name) { return String(decoding: bytes, as: UTF8.self) }
        var report = ""
        let code = try compiler.compile(
            file, headers: headers, architecture: architecture, options: Self.options, noting: { report = $0 })
        #expect(code.starts(with: [0x7F] + Array("ELF".utf8)), "\(file.name) for \(architecture)")
        cache.write(Array(report.utf8), as: name)
        return report
    }
}

/// What a kernel needs of a device.
private struct KernelUse: Hashable, Sendable {
    let name: String
    /// Bytes of local memory of a thread: spilled registers, and arrays that are indexed at run time.
    let stack: Int

    /// Reads the lines that `--ptxas-options=-v` adds to a report.
    static func read(_ report: String) -> [KernelUse] {
        var uses: [KernelUse] = []
        var name: Substring?
        for line in report.split(separator: "\n") {
            if line.contains("Compiling entry function '") {
                name = line.split(separator: "'").dropFirst().first
            } else if let kernel = name, line.contains(" bytes stack frame") {
                let words = line.split(separator: " ")
                let stack = words.firstIndex(of: "bytes").flatMap { $0 > 0 ? Int(words[$0 - 1]) : nil }
                uses.append(KernelUse(name: String(kernel), stack: stack ?? .max))
                name = nil
            }
        }
        return uses
    }
}
