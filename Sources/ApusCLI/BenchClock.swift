import ApusCUDA
import ApusKernels
import ApusTensor

/// Something to time, and where it runs.
struct TimedWork {
    let backend: any Backend
    /// How often `body` runs between two marks.
    var repeats = 1
    let body: () throws -> Void
}

/// Seconds of one run of each work, by round. Works take turns, so that a drift of the machine favours none.
///
/// The host waits only where the next work belongs to another backend, whose stream would run beside this one's, and
/// after the last round: a device is never idle for want of orders while it is timed.
func timeInTurn(_ works: [TimedWork], rounds: Int, warmup: Int = 1) throws -> [[Double]] {
    var marks = works.map { _ in [(begin: any TimeMark, end: any TimeMark)]() }
    for round in -warmup..<rounds {
        for (index, work) in works.enumerated() {
            let previous = works[(index + works.count - 1) % works.count]
            if previous.backend !== work.backend {
                try marks[(index + works.count - 1) % works.count].last?.end.wait()
                // An idle device would come past the first mark long before the host has given it what follows.
                if !(work.backend is CPUBackend) { try work.body() }
            }
            let begin = try work.backend.timeMark()
            for _ in 0..<work.repeats { try work.body() }
            let end = try work.backend.timeMark()
            if round >= 0 { marks[index].append((begin, end)) } else { try end.wait() }
        }
    }
    return try zip(works, marks).map { work, marks in
        try marks.map { try $0.end.seconds(since: $0.begin) / Double(work.repeats) }
    }
}

/// Bytes a second of a large copy, read and written.
func copySpeed(_ backend: any Backend) throws -> Double {
    if let backend = backend as? CUDABackend { return try CUDASpeed.memory(on: backend) }
    return try MachineSpeed.memory(backend: backend)
}

/// FLOP/s that no product passes: of the processor's registers, and on a GPU of a large product.
func peakSpeed(_ dtype: DType, _ backend: any Backend) throws -> Double {
    if let backend = backend as? CUDABackend { return try CUDASpeed.product(dtype, on: backend) }
    return try MachineSpeed.peak(dtype, backend: backend)
}

extension Backend {
    /// A dense tensor of random numbers.
    func random(_ shape: Shape, _ dtype: DType, deviation: Float = 1, seed: UInt64 = 1) throws -> Tensor {
        let result = try empty(shape, dtype, .workspace)
        try fillRandom(
            result, .normal(mean: 0, deviation: deviation),
            stream: RandomStream(seed: seed, purpose: .initialization), first: 0)
        return result
    }
}
