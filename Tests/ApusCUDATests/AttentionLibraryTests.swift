import ApusKernels
import ApusTensor
import ApusTestSupport
import CApusDrivers
import Synchronization
import Testing

@testable import ApusCUDA

// Shape letters: S sequences, T tokens, Hq query heads, Hk key heads, H head width.

extension CUDATests {
    @Suite struct `Attention by cuDNN` {
        private let folder: ScratchFolder

        init() throws {
            FakeDriver.reset()
            FakeCompiler.reset()
            FakeProducts.reset()
            FakeAttention.reset()
            folder = try ScratchFolder()
        }

        private var cache: KernelCache { KernelCache(folder: folder.file("plans")) }

        private func fused(isDeterministic: Bool = true) -> FusedAttention {
            FusedAttention(isDeterministic: isDeterministic, cache: cache) { () throws(LibraryProblem) in
                FakeAttention.table
            }
        }

        private func backend(_ fused: FusedAttention? = nil, batchInvariant: Bool = false) throws -> CUDABackend {
            let context = try FakeDriver.context()
            return try CUDABackend(
                context, products: ProductLibrary(context, functions: FakeProducts.table),
                kernels: KernelLibrary(
                    context, compiler: KernelCompiler(functions: FakeCompiler.table), cache: KernelCache(folder: nil),
                    files: [FakeCompiler.source], names: { _ in .any }), fusedAttention: fused ?? self.fused(),
                batchInvariant: batchInvariant
            )
        }

        /// One fused projection of S sequences, and what attention makes of it.
        private struct Call {
            let backend: CUDABackend
            let lengths: [Int]
            let queryHeads: Int, keyHeads: Int, width: Int
            let fused: Tensor, gradients: Tensor, out: Tensor, dout: Tensor, sums: Tensor, starts: Tensor

            init(_ backend: CUDABackend, _ lengths: [Int], _ heads: (Int, Int), _ width: Int) throws {
                self.backend = backend
                self.lengths = lengths
                (queryHeads, keyHeads) = heads
                self.width = width
                let tokens = lengths.reduce(0, +)
                let row = (heads.0 + 2 * heads.1) * width
                fused = try backend.empty(Shape(tokens, row), .bf16)
                gradients = try backend.empty(Shape(tokens, row), .bf16)
                out = try backend.empty(Shape(tokens, heads.0, width), .bf16)
                dout = try backend.empty(Shape(tokens, heads.0, width), .bf16)
                sums = try backend.empty(Shape(tokens, heads.0), .f32)
                let starts = lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
                self.starts = try backend.tensor(starts.map { Int32($0) }, Shape(starts.count))
            }

            func queries(_ x: Tensor) -> Tensor { heads(x, 0, queryHeads) }
            func keys(_ x: Tensor) -> Tensor { heads(x, queryHeads, keyHeads) }
            func values(_ x: Tensor) -> Tensor { heads(x, queryHeads + keyHeads, keyHeads) }
            private func heads(_ x: Tensor, _ first: Int, _ count: Int) -> Tensor {
                x.columns(first * width..<(first + count) * width).reshaped(x.shape[0], count, width)
            }
            private var view: KVView {
                KVView(keys: keys(fused), values: values(fused), layout: .contiguous(cumulativeLengths: starts))
            }

            func forward(_ mask: AttentionMask = .causal, sums given: Bool = true) throws {
                try backend.attention(
                    queries(fused), cumulativeLengths: starts, kv: view, mask: mask, scale: 0.25, into: out,
                    logSumExp: given ? sums : nil)
            }

            func backward(_ mask: AttentionMask = .causal) throws {
                try backend.attentionBackward(
                    dout, q: queries(fused), cumulativeLengths: starts, kv: view, mask: mask, scale: 0.25, out: out,
                    logSumExp: sums, dq: queries(gradients), dk: keys(gradients), dv: values(gradients))
            }
        }

        private func runs() -> [FakeAttention.Run] { FakeAttention.state.withLock(\.runs) }
        private func launches() -> [Substring] {
            FakeDriver.takeCalls("launch").map { $0.split(separator: " ")[1] }
        }

        @Test func `has its functions by name`() {
            let loader = LibraryLoader(library: "cuDNN", names: "libm.so.6", needed: LibraryVersion(9, 11))
            #expect(
                throws: LibraryProblem.incomplete(
                    library: "cuDNN", needed: "9.11", file: "libm.so.6", function: "cudnnCreate")
            ) { try loader.table(apus_cudnn_load).file }
        }

        @Test func `of a version that is too old is refused, and our own kernels go on`() throws {
            FakeAttention.state.withLock { $0.version = 91_002 }
            let call = try Call(try backend(), [128, 128], (4, 2), 64)
            #expect(throws: LibraryProblem.tooOld(library: "cuDNN", needed: "9.11", found: "9.10")) {
                try AttentionLibrary(call.backend.queue, functions: FakeAttention.table)
            }
            _ = launches()
            try call.forward()
            #expect(launches() == ["attention_sm90a_64"] && runs().isEmpty)
        }

        @Test func `that cannot be set up says so`() throws {
            FakeAttention.state.withLock { $0.creates = false }
            let backend = try backend()
            let call = try Call(backend, [128, 128], (4, 2), 64)
            #expect(backend.attentionProblem == nil)
            _ = launches()
            for _ in 0..<2 { try call.forward() }
            #expect(launches() == ["attention_sm90a_64", "attention_sm90a_64"])
            let problem = try #require(backend.attentionProblem)
            #expect(problem.hasPrefix("cudnnCreate failed: CUDNN_STATUS_INTERNAL_ERROR (1001)"))
            #expect(problem.contains("no engine; for this graph, at ApusCUDA/AttentionLibrary.swift"))
        }

        @Test func `reads slices of a fused projection in place`() throws {
            let call = try Call(try backend(), [128, 128], (4, 2), 64)
            _ = launches()
            try call.forward()
            #expect(launches().isEmpty)
            let run = try #require(runs().first)
            let expected: [(AttentionRole, Tensor)] = [
                (.queries, call.fused), (.keys, call.keys(call.fused)), (.values, call.values(call.fused)),
                (.out, call.out), (.logSumExp, call.sums),
            ]
            for (role, tensor) in expected { #expect(run.addresses[role.rawValue] == Int(tensor.address), "\(role)") }
            #expect(run.addresses.count == expected.count + 2 && run.scale == 0.25)
            #expect(
                strides(of: .keys) == [[128 * 512, 64, 1, 512]] && strides(of: .values) == [[128 * 512, 64, 512, 1]])
            #expect(strides(of: .logSumExp) == [[128 * 4, 1, 4, 1]])
        }

        /// Strides of the tensors of this role in the graphs so far.
        private func strides(of role: AttentionRole) -> [[Int]] {
            FakeAttention.state.withLock { state in
                state.descriptors.values.filter { $0.values[APUS_DNN_TENSOR_ID] == [role.rawValue] }
                    .compactMap { $0.values[APUS_DNN_TENSOR_STRIDES] }
            }
        }

        @Test func `is not asked where nothing will be differentiated`() throws {
            let call = try Call(try backend(), [128, 128], (4, 2), 64)
            _ = launches()
            try call.forward(sums: false)
            #expect(launches() == ["attention_sm90a_64"] && runs().isEmpty)
        }

        @Test func `leaves what it does not take to our own kernels`() throws {
            let uneven = try Call(try backend(), [128, 130], (4, 2), 64)
            _ = launches()
            try uneven.forward()
            try uneven.backward()
            let even = try Call(try backend(), [128, 128], (4, 2), 64)
            try even.forward(AttentionMask(isCausal: true, window: 5))
            let invariant = try Call(try backend(batchInvariant: true), [128, 128], (4, 2), 64)
            try invariant.forward()
            #expect(runs().isEmpty)
            #expect(
                launches() == [
                    "attention_sm90a_64", "attention_delta_bf16", "attention_key_gradient_sm90a_64",
                    "attention_query_gradient_sm90a_64", "attention_sm90a_64", "attention_sm90a_64",
                ])
        }

        @Test func `no longer takes boundaries that were overwritten`() throws {
            let call = try Call(try backend(), [128, 128], (4, 2), 64)
            try call.backend.upload([Int32(0), 100, 256], into: call.starts)
            try call.forward()
            #expect(runs().isEmpty)
            try call.backend.upload([Int32(0), 128, 256], into: call.starts)
            try call.forward()
            #expect(runs().count == 1)
            try call.backend.copy(call.backend.tensor([Int32(0), 1, 256], Shape(3)), into: call.starts)
            try call.forward()
            #expect(runs().count == 1)
        }

        @Test func `asks for a plan once, and no more when there is none`() throws {
            let call = try Call(try backend(), [128, 128], (4, 2), 64)
            for _ in 0..<3 { try call.forward() }
            #expect(FakeAttention.state.withLock(\.compiled) == 1 && runs().count == 3)
            FakeAttention.state.withLock { $0.answers = [3000, 3001] }
            _ = launches()
            for _ in 0..<2 { try call.forward(.none) }
            #expect(FakeAttention.state.withLock(\.compiled) == 3)
            #expect(launches() == ["attention_sm90a_64", "attention_sm90a_64"])
        }

        @Test func `takes the first proposal that works, and leaves the work to our own kernels where none does`()
            throws
        {
            FakeAttention.state.withLock { $0.answers = [3000, 0] }
            let attention = fused()
            let call = try Call(try backend(attention), [128, 128], (4, 2), 64)
            try call.forward()
            #expect(runs().count == 1 && attention.problem == nil)
            FakeAttention.state.withLock {
                $0.answers = [5001]
                $0.compiled = 0
            }
            _ = launches()
            try call.backward()
            #expect(runs().count == 1 && launches().contains { $0.hasPrefix("attention_key_gradient") })
            let problem = "\(try #require(attention.problem))"
            #expect(problem.hasPrefix("cudnnBackendFinalize of a plan for backward"))
            #expect(problem.contains("2 x (128, 4, 64) over (128, 2, 64) causal by 512 512 512 256 4"))
        }

        @Test func `names a plan's file by its graph, so that another form of it reads none`() throws {
            let library = try AttentionLibrary(try backend().queue, functions: FakeAttention.table)
            func checksum(_ change: (GraphDescriptor) throws -> Void) throws -> UInt64 {
                let tensor = try GraphDescriptor(APUS_DNN_TENSOR, "a tensor", library)
                try tensor.set(APUS_DNN_TENSOR_EXTENTS, [1, 2, 3, 4])
                try change(tensor)
                let graph = try GraphDescriptor(APUS_DNN_GRAPH, "a graph", library)
                try graph.set(APUS_DNN_GRAPH_OPERATIONS, tensor)
                return graph.checksum
            }
            let same = try checksum { _ in }
            #expect(try checksum { _ in } == same)
            #expect(try checksum { try $0.set(APUS_DNN_TENSOR_ID, [1]) } != same)
            #expect(
                try checksum { try $0.set(APUS_DNN_TENSOR_ID, [1]) } != checksum { try $0.set(APUS_DNN_TENSOR_ID, [2]) }
            )
        }

        @Test func `keeps plans on disk`() throws {
            try Call(try backend(), [128, 128], (4, 2), 64).forward()
            let second = fused()
            try Call(try backend(second), [128, 128], (4, 2), 64).forward()
            #expect(second.compiledCount == 0 && FakeAttention.state.withLock(\.kept) == 1)
            // Another library, or another shape, is another plan.
            FakeAttention.state.withLock { $0.version = 91_500 }
            try Call(try backend(), [128, 128], (4, 2), 64).forward()
            try Call(try backend(), [128, 128], (4, 4), 64).forward()
            #expect(FakeAttention.state.withLock(\.compiled) == 3)
            for name in folderNames(folder.file("plans")) { try folder.write("plans/\(name)", text: "spoiled") }
            let third = fused()
            try Call(try backend(third), [128, 128], (4, 4), 64).forward()
            #expect(third.compiledCount == 1 && runs().count == 5)
        }

        @Test(
            arguments: [AttentionPass.forward, .backward(isDeterministic: true), .backward(isDeterministic: false)],
            [(true, 4, 128), (true, 2, 100), (false, 4, 100), (false, 2, 128)]
        ) func `is handed every tensor of its graph, and no other`(
            pass: AttentionPass, form: (isCausal: Bool, keyHeads: Int, length: Int)
        ) throws {
            let isDeterministic = pass != .backward(isDeterministic: false)
            let call = try Call(
                try backend(fused(isDeterministic: isDeterministic)), [form.length, form.length], (4, form.keyHeads), 64
            )
            let mask: AttentionMask = form.isCausal ? .causal : .none
            if pass == .forward { try call.forward(mask) } else { try call.backward(mask) }
            let run = try #require(runs().first)
            #expect(run.addresses.values.allSatisfy { $0 != 0 })
            #expect(Set(run.addresses.keys) == tensorsOfGraph())
        }

        /// The tensors in memory, by number, of the operations of the only graph.
        private func tensorsOfGraph() -> Set<Int> {
            FakeAttention.state.withLock { state in
                let graph = state.graphs.first.flatMap { state.descriptors[$0] }
                let operations = (graph?.values[APUS_DNN_GRAPH_OPERATIONS] ?? []).compactMap { state.descriptors[$0] }
                let tensors = operations.flatMap { $0.values.values.flatMap { $0 } }.compactMap {
                    state.descriptors[$0]
                }
                return Set(
                    tensors.filter {
                        $0.kind == APUS_DNN_TENSOR && $0.values[APUS_DNN_TENSOR_IS_VIRTUAL] != [1] && $0.isFinished
                    }.flatMap { $0.values[APUS_DNN_TENSOR_ID] ?? [] })
            }
        }

        @Test func `goes backward in parts that its memory allows`() throws {
            let call = try Call(try backend(), [8192], (8, 8), 64)
            try call.backward()
            let runs = runs()
            #expect(runs.count == 2)
            for (index, run) in runs.enumerated() {
                let (queries, keys) = (run.addresses[1] ?? 0, run.addresses[AttentionRole.keyGradient.rawValue] ?? 0)
                #expect(queries == Int(call.fused.address) + index * 4 * 64 * 2)
                #expect(keys == Int(call.keys(call.gradients).address) + index * 4 * 64 * 2)
                let sums = run.addresses[AttentionRole.logSumExp.rawValue] ?? 0
                #expect(sums == Int(call.sums.address) + index * 4 * 4)
            }
            #expect(FakeAttention.state.withLock(\.compiled) == 1)
        }

        @Test func `gives every descriptor back`() throws {
            do {
                let call = try Call(try backend(), [128, 128], (4, 2), 64)
                try call.forward()
                try call.backward()
            }
            #expect(FakeAttention.state.withLock { $0.descriptors.count } == 0)
        }
    }
}
