import ApusCUDA
import ApusKernels
import ApusTensor

/// `apus doctor` on a GPU.
extension Doctor {
    /// What was found about the GPU; `nil` under `--device auto` where there is none that can be used.
    func examineCUDA() throws -> Report? {
        let machine = CUDAMachine()
        let backend: CUDABackend
        do {
            backend = try CUDABackend(batchInvariant: batchInvariant, limits: portable ? .portable : nil)
        } catch let problem as LibraryProblem {
            guard device == .cuda else {
                if portable { throw CommandError("--portable checks kernels of a GPU: \(problem)") }
                if !json { print("no GPU is examined: \(problem)") }
                return nil
            }
            throw CommandError("--device cuda: \(problem); --device cpu examines the processor\n\(found(machine))")
        }
        let speeds = skipSpeed ? [] : try measure(backend)
        if !json {
            print(found(machine))
            describe(backend, speeds)
        }
        let report = try check(backend, fields(machine, backend, speeds)) {
            try freeOrderChecks(backend) + RecordedWorkChecks.run(on: backend, where: isWanted)
        }
        if let problem = backend.attentionProblem, !json {
            print("note: cuDNN could not compute some attention, which our own kernels did: \(problem)\n")
        }
        return report
    }

    /// Attention's backward pass as `training.deterministic: false` has it.
    private func freeOrderChecks(_ other: CUDABackend) throws -> [OpCheck.Outcome] {
        let checks = checks.filter { $0.name == "attention backward" && $0.dtype == .bf16 }
        guard !checks.isEmpty else { return [] }
        let backend = try CUDABackend(
            batchInvariant: other.isBatchInvariant, deterministic: false, limits: other.limits)
        return try checks.map { check in
            let outcome = try check.run(on: backend)
            return OpCheck.Outcome(
                name: "\(outcome.name), any order", dtype: outcome.dtype, error: outcome.error,
                tolerance: outcome.tolerance)
        }
    }

    /// The libraries, each with its version or what is wrong with it.
    private func found(_ machine: CUDAMachine) -> String {
        let rows = machine.libraries.map { library in
            switch library.found {
            case .success(let version): [library.name, "\(version)"]
            case .failure(let problem): [library.name, "\(problem)"]
            }
        }
        return table(rows, leftColumns: 2)
    }

    private func measure(_ backend: CUDABackend) throws -> [Speed] {
        var speeds = try [DType.bf16, .f32].map { dtype in
            Speed(
                name: "products \(dtype)", key: "products_\(dtype)_tflops",
                value: try CUDASpeed.product(dtype, on: backend) / 1e12, unit: "TFLOP/s")
        }
        speeds.append(
            Speed(
                name: "memory, read and written", key: "memory_gb_per_second",
                value: try CUDASpeed.memory(on: backend) / 1e9, unit: "GB/s"))
        return speeds
    }

    private func describe(_ backend: CUDABackend, _ speeds: [Speed]) {
        let device = backend.device
        var rows = [
            ["device", "cuda:\(device.ordinal), \(device.name), compute capability \(device.capability)"],
            ["multiprocessors", "\(device.multiprocessors)"],
            ["memory", "\(formatBytes(device.memory)), cache \(formatBytes(device.cache))"],
            [
                "kernels",
                backend.compiledKernelFiles == 0 ? "from the cache" : "\(backend.compiledKernelFiles) files compiled",
            ],
        ]
        if portable {
            let limits = backend.limits
            rows.append([
                "checked",
                "the portable kernels, as chosen for compute capability \(limits.capability) and "
                    + "\(limits.sharedMemory >> 10) KB of shared memory in a block",
            ])
        }
        rows += speeds.map { [$0.name, "\(fixed($0.value, 1)) \($0.unit)"] }
        print(table(rows, leftColumns: 2) + "\n")
    }

    private func fields(
        _ machine: CUDAMachine, _ backend: CUDABackend, _ speeds: [Speed]
    ) -> [(String, JSONText)] {
        let libraries = machine.libraries.map { library -> (String, JSONText) in
            (library.name, (try? library.found.get()).map { .string("\($0)") } ?? .null)
        }
        return [
            ("device", .string("cuda:\(backend.device.ordinal)")), ("name", .string(backend.device.name)),
            ("compute_capability", .string("\(backend.device.capability)")),
            ("multiprocessors", .integer(backend.device.multiprocessors)),
            ("memory_bytes", .integer(backend.device.memory)), ("libraries", .object(libraries)),
            (
                "kernels_chosen_for",
                .object([
                    ("compute_capability", .string("\(backend.limits.capability)")),
                    ("shared_memory_bytes", .integer(backend.limits.sharedMemory)),
                ])
            ), ("kernel_files_compiled", .integer(backend.compiledKernelFiles)),
            ("speed", .object(speeds.map { ($0.key, .number($0.value)) })),
        ]
    }
}
