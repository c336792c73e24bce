import ApusTensor
import Glibc
import Synchronization
import Testing

@Suite struct `The thread pool` {
    @Test(arguments: [1, 2, 3, 7], [0, 1, 2, 3, 16, 1000])
    func `runs every part once`(threads: Int, parts: Int) {
        let pool = ThreadPool(threadCount: threads)
        let counts = UnsafeMutableBufferPointer<Int>.allocate(capacity: max(parts, 1))
        counts.initialize(repeating: 0)
        defer { counts.deallocate() }
        let worst = Atomic<Int>(0)
        // A part run twice would most likely be seen here, for two threads would write the same element.
        pool.run(parts: parts) { part, thread in
            counts[part] += 1
            if thread < 0 || thread >= threads { worst.store(thread, ordering: .relaxed) }
        }
        #expect(counts[..<parts].allSatisfy { $0 == 1 })
        let outside = worst.load(ordering: .relaxed)
        #expect(outside == 0)
    }

    @Test(arguments: [1, 2, 3], [(0, 1), (1, 4), (10, 4), (10, 100), (1000, 7), (1001, 1)])
    func `cuts a count into ranges without gaps`(threads: Int, sizes: (count: Int, grain: Int)) {
        let pool = ThreadPool(threadCount: threads)
        let ranges = Mutex<[Range<Int>]>([])
        pool.forEachRange(count: sizes.count, grain: sizes.grain) { range, _ in ranges.withLock { $0.append(range) } }
        let sorted = ranges.withLock { $0.sorted { $0.lowerBound < $1.lowerBound } }
        #expect(sorted.flatMap { Array($0) } == Array(0..<sizes.count))
        #expect(sorted.count <= threads)
        #expect(sorted.dropLast().allSatisfy { $0.count >= sizes.grain })
    }

    @Test func `gives each thread an index of its own`() {
        let pool = ThreadPool(threadCount: 3)
        let inUse = Mutex<Set<Int>>([])
        let clashes = Atomic<Int>(0)
        pool.run(parts: 300) { _, thread in
            let isFree = inUse.withLock { $0.insert(thread).inserted }
            if !isFree { clashes.wrappingAdd(1, ordering: .relaxed) }
            for _ in 0..<50 { sched_yield() }
            inUse.withLock { _ = $0.remove(thread) }
        }
        let found = clashes.load(ordering: .relaxed)
        #expect(found == 0)
    }

    @Test func `runs nested work inline`() {
        let pool = ThreadPool(threadCount: 2)
        let total = Atomic<Int>(0)
        pool.run(parts: 8) { _, _ in
            let outer = pthread_self()
            pool.run(parts: 5) { _, thread in
                total.wrappingAdd(thread == 0 && pthread_self() == outer ? 1 : 1000, ordering: .relaxed)
            }
        }
        let sum = total.load(ordering: .relaxed)
        #expect(sum == 40)
    }

    @Test func `serves many callers at once`() {
        let pool = ThreadPool(threadCount: 2)
        let callers = ThreadPool(threadCount: 6)
        let sums = Mutex<[Int]>([])
        callers.run(parts: 60) { caller, _ in
            let sum = Atomic<Int>(0)
            pool.run(parts: 50) { part, _ in sum.wrappingAdd(part * caller, ordering: .relaxed) }
            sums.withLock { $0.append(sum.load(ordering: .relaxed)) }
        }
        let sorted = sums.withLock { $0.sorted() }
        #expect(sorted == (0..<60).map { 1225 * $0 })
    }

    @Test func `survives 100000 small runs`() {
        let pool = ThreadPool(threadCount: 2)
        let sum = Atomic<Int>(0)
        for _ in 0..<100_000 { pool.run(parts: 2) { part, _ in sum.wrappingAdd(part + 1, ordering: .relaxed) } }
        let reached = sum.load(ordering: .relaxed)
        #expect(reached == 300_000)
    }

    @Test func `wakes threads that have gone to sleep`() {
        let pool = ThreadPool(threadCount: 3)
        let sum = Atomic<Int>(0)
        for _ in 0..<20 {
            usleep(2000)
            pool.run(parts: 30) { _, _ in sum.wrappingAdd(1, ordering: .relaxed) }
        }
        let reached = sum.load(ordering: .relaxed)
        #expect(reached == 600)
    }

    /// In a process of its own: other tests have threads too.
    @Test func `ends its threads with itself`() async {
        await #expect(processExitsWith: .success) {
            let before = threadsOfThisProcess()
            for _ in 0..<50 {
                let pool = ThreadPool(threadCount: 4)
                pool.run(parts: 4) { _, _ in }
            }
            // A thread that has been told to end needs a moment.
            for _ in 0..<500 where threadsOfThisProcess() > before + 20 { usleep(10_000) }
            #expect(threadsOfThisProcess() <= before + 20)
        }
    }
}

private func threadsOfThisProcess() -> Int {
    guard let folder = opendir("/proc/self/task") else { return .max }
    defer { closedir(folder) }
    var count = -2
    while readdir(folder) != nil { count += 1 }
    return count
}
