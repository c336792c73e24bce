import ApusKernels
import ApusTensor
import CApusKernels
import Testing

@Suite struct `Measuring the machine` {
    @Test func `leaves the backend's memory alone`() throws {
        // Too small a limit for one operand.
        let backend = CPUBackend(threadCount: 2, memoryLimit: 4096)
        #expect(try MachineSpeed.product(.f32, backend: backend, rounds: 1) > 0)
        #expect(backend.allocator.statistics.totalPeak == 0)
        #expect(backend.allocator.statistics.systemAllocations == 0)
    }

    @Test(arguments: floatingTypes)
    func `counts the operations of the widest instruction`(dtype: DType) {
        let features = apus_cpu_features()
        let isPaired = dtype == .bf16 && features & UInt32(APUS_CPU_AVX512_BF16) != 0
        let lanes =
            features & UInt32(APUS_CPU_AVX512) != 0 ? 16.0 : features & UInt32(APUS_CPU_AVX2) != 0 ? 8 : 4
        var (one, ten): (Float, Float) = (0, 0)
        let type = dtype == .bf16 ? APUS_BF16 : APUS_F32
        // A multiple of twelve independent sums, two operations for each product.
        let operations = apus_peak_run(type, 1, &one)
        #expect(operations.truncatingRemainder(dividingBy: 2 * lanes * (isPaired ? 2 : 1)) == 0)
        #expect(apus_peak_run(type, 10, &ten) == 10 * operations)
        #expect(one.isFinite && ten.isFinite && one != ten)
    }

    @Test func `two threads or one, no product passes the peak`() throws {
        for threads in [1, 2] {
            let backend = CPUBackend(threadCount: threads)
            // Other programs may slow any measurement: the peak is the highest of several, before and after, and the bound is
            // loose.
            func peak() -> Double { MachineSpeed.peak(.f32, pool: backend.pool) }
            let before = max(peak(), peak())
            let product = try MachineSpeed.product(.f32, backend: backend)
            #expect(product < 1.5 * max(before, peak(), peak()))
        }
    }
}
