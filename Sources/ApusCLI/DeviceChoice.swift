import ApusCUDA
import ApusCollectives
import ApusKernels
import ApusTensor
import ArgumentParser

/// `--device`: where a command computes.
enum DeviceChoice: String, ExpressibleByArgument, CaseIterable {
    /// A GPU where there is one that can be used, else the processor.
    case automatic = "auto"
    case cpu, cuda

    /// The backend of the device. Says why a GPU that is there is not used.
    ///
    /// - Parameters:
    ///   - threads: Threads on the processor; one for each core by default.
    ///   - memoryLimit: Most bytes of tensors; what the device has by default, of a processor's a share for each rank.
    ///   - deterministic: See `CUDABackend`; nothing varies on the processor.
    func backend(
        threads: Int?, memoryLimit: Int?, batchInvariant: Bool = false, deterministic: Bool = true
    ) throws -> any Backend {
        guard self != .cpu else { return processor(threads, memoryLimit, batchInvariant) }
        switch try DeviceChoice.gpu(memoryLimit, batchInvariant: batchInvariant, deterministic: deterministic) {
        case .success(let backend): return backend
        case .failure(let problem):
            guard self == .automatic else {
                throw CommandError("--device cuda: \(problem); --device cpu computes without it")
            }
            // Without a driver there is nothing to tell: most machines have no GPU.
            if case .success = CUDADriver.shared { writeError("note: \(problem); computing on the CPU") }
            return processor(threads, memoryLimit, batchInvariant)
        }
    }

    /// The GPU of this process, or why it cannot be used.
    static func gpu(
        _ memoryLimit: Int?, batchInvariant: Bool = false, deterministic: Bool
    ) throws -> Result<CUDABackend, LibraryProblem> {
        do {
            return .success(
                try CUDABackend(
                    ordinal: CUDADevice.ordinal(forProcess: World.rankOnThisMachine), memoryLimit: memoryLimit,
                    batchInvariant: batchInvariant, deterministic: deterministic))
        } catch let problem as LibraryProblem {
            return .failure(problem)
        }
    }

    private func processor(_ threads: Int?, _ memoryLimit: Int?, _ batchInvariant: Bool) -> CPUBackend {
        // Without a limit the system would hand out more than there is, and kill the process when it is used.
        CPUBackend(
            threadCount: threads ?? ThreadPool.availableCores,
            memoryLimit: memoryLimit ?? CachingAllocator.physicalMemory / World.ranksOnThisMachine,
            batchInvariant: batchInvariant)
    }
}
