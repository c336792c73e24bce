import ApusCUDA
import ApusKernels
import ApusTensor

/// `apus doctor --device cuda`.
extension Doctor {
    func examineCUDA() throws {
        let machine = CUDAMachine()
        let backend: CUDABackend
        do {
            backend = try CUDABackend()
        } catch let problem as LibraryProblem {
            throw CommandError("--device cuda: \(problem); --device cpu examines the processor\n\(found(machine))")
        }
        let speeds = skipSpeed ? [] : try measure(backend)
        if !json {
            print(found(machine))
            describe(backend, speeds)
        }
        let outcomes = try OpCheck.all.map { try $0.run(on: backend) }
        try conclude(outcomes) { object(machine, backend, speeds, $0) }
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
        rows += speeds.map { [$0.name, "\(fixed($0.value, 1)) \($0.unit)"] }
        print(table(rows, leftColumns: 2) + "\n")
    }

    private func object(
        _ machine: CUDAMachine, _ backend: CUDABackend, _ speeds: [Speed], _ outcomes: [OpCheck.Outcome]
    ) -> JSONText {
        let libraries = machine.libraries.map { library -> (String, JSONText) in
            (library.name, (try? library.found.get()).map { .string("\($0)") } ?? .null)
        }
        return .object([
            ("device", .string("cuda:\(backend.device.ordinal)")), ("name", .string(backend.device.name)),
            ("compute_capability", .string("\(backend.device.capability)")),
            ("multiprocessors", .integer(backend.device.multiprocessors)),
            ("memory_bytes", .integer(backend.device.memory)), ("libraries", .object(libraries)),
            ("kernel_files_compiled", .integer(backend.compiledKernelFiles)),
            ("speed", .object(speeds.map { ($0.key, .number($0.value)) })), ("checks", checks(outcomes)),
            ("passes", .bool(outcomes.allSatisfy(\.passes))),
        ])
    }
}
