import Glibc

/// Blocks of host memory from the system, aligned to 64 bytes at least.
enum SystemMemory {
    /// Bytes from which a block is mapped on its own, so that freeing it gives its pages back at once.
    private static let mappedSize = 1 << 20
    /// Bytes from which a block starts on a huge-page boundary: fewer address translations in every product that reads
    /// it.
    private static let hugeSize = 4 << 20
    private static let hugePage = 2 << 20
    /// `MADV_HUGEPAGE`, which the Glibc module does not export.
    private static let hugePageAdvice: Int32 = 14

    /// The address of `size` bytes, or `nil` when the system refuses.
    static func allocate(_ size: Int) -> UInt? {
        guard size >= mappedSize else {
            var pointer: UnsafeMutableRawPointer?
            guard posix_memalign(&pointer, 64, size) == 0 else { return nil }
            return UInt(bitPattern: pointer)
        }
        let slack = size >= hugeSize ? hugePage : 0
        let (length, overflow) = rounded(size).addingReportingOverflow(slack)
        guard !overflow, length > 0 else { return nil }
        guard let start = mmap(nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            start != MAP_FAILED
        else { return nil }
        guard slack > 0 else { return UInt(bitPattern: start) }
        // What lies before the boundary and after the block goes back.
        let before = -Int(bitPattern: start) & (hugePage - 1)
        if before > 0 { munmap(start, before) }
        if slack > before { munmap(start + before + rounded(size), slack - before) }
        madvise(start + before, size, hugePageAdvice)
        return UInt(bitPattern: start + before)
    }

    /// Gives a block of `allocate(size)` back.
    static func free(_ address: UInt, size: Int) {
        let pointer = UnsafeMutableRawPointer(bitPattern: address)
        if size >= mappedSize { munmap(pointer, rounded(size)) } else { Glibc.free(pointer) }
    }

    /// `size` in whole pages, of 64 KiB at most.
    private static func rounded(_ size: Int) -> Int { (size + 0xFFFF) & ~0xFFFF }
}
