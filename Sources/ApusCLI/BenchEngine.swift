import ApusCUDA
import ApusKernels
import ApusNN
import ApusTensor
import ArgumentParser

/// `--precision` of benchmarks.
enum BenchPrecision: String, ExpressibleByArgument, CaseIterable {
    case f32, bf16
    /// Gradients and moments in bf16 too: what PyTorch's usual bf16 training does.
    case bf16Pure = "bf16-pure"

    /// As models have it.
    var value: Precision {
        switch self {
        case .f32: .f32
        case .bf16: .bf16
        case .bf16Pure: .bf16Pure
        }
    }
}

/// What computes products in a benchmark, by the name that it is reported under.
struct BenchEngine {
    let name: String
    let backend: any Backend
}

extension BenchOptions {
    /// The engines to compare on a device: on the CPU our own kernels and oneDNN, where it is there, perhaps after the
    /// choice that Apus makes by itself; on a GPU that choice alone.
    func engines(on device: DeviceChoice, includingAutomatic: Bool) throws -> [BenchEngine] {
        let automatic = try backend(on: device)
        guard automatic is CPUBackend else { return [BenchEngine(name: "auto", backend: automatic)] }
        var engines = includingAutomatic ? [BenchEngine(name: "auto", backend: automatic)] : []
        let kinds: [CPUBackend.ProductEngine] =
            Machine().hasOneDNN ? [.own, .oneDNN] : includingAutomatic ? [] : [.own]
        engines += kinds.map { BenchEngine(name: $0.rawValue, backend: backend($0)) }
        return engines
    }

    /// The engines of dense products: on a GPU cuBLAS, and our own kernels, which the batch-invariant mode uses.
    func denseEngines(on device: DeviceChoice) throws -> [BenchEngine] {
        let engines = try engines(on: device, includingAutomatic: false)
        guard let first = engines.first, !(first.backend is CPUBackend) else { return engines }
        let own = try device.backend(threads: threads, memoryLimit: nil, batchInvariant: true)
        return [BenchEngine(name: "cublas", backend: first.backend), BenchEngine(name: "own", backend: own)]
    }
}
