import Synchronization

/// Hands out storage from size-class free lists, and counts every byte by purpose.
///
/// A block goes back to the list of its class when its last owner lets go, so a training step that repeats the same
/// shapes asks the system for nothing after its first pass. Classes grow by an eighth of a power of two, of 64 bytes at
/// least: at most 12.5 % of a block above 512 bytes is unused, and 255 bytes of a smaller one.
///
/// What work on another stream still uses when its owner lets go (``Storage/keep(until:)``) waits for that work first.
///
/// Blocks that no request comes back for (those of a cache that grew) return to the system once the bytes held pass
/// what was ever live by a quarter, the least recently used first.
public final class CachingAllocator: Sendable {
    /// The device whose memory this allocator hands out.
    public let device: Device
    private let source: any MemorySource
    /// Most bytes that may be held at once, live and cached; `nil` for no limit but the machine's.
    public let limit: Int?
    private let state: Mutex<State>

    private struct State: ~Copyable {
        var statistics = MemoryStatistics()
        var cache = BlockCache()
        var parked = ParkedBlocks()
        /// Where blocks come from and go to while work is recorded.
        var reserve: MemoryReserve?
        /// Bytes that reserves hold and no tensor does.
        var reservedBytes = 0
        /// Highest number of live bytes, which ``CachingAllocator/resetPeaks()`` leaves alone.
        var highestLive = 0

        /// Bytes that are held and not live.
        var heldForReuse: Int { cache.byteCount + parked.byteCount + reservedBytes }
    }

    /// An allocator of host memory, refusing to hold more than `limit` bytes.
    public convenience init(limit: Int? = nil) { self.init(source: HostMemory(), limit: limit) }

    /// An allocator of the memory of `source`, refusing to hold more than `limit` bytes.
    public init(source: any MemorySource, limit: Int? = nil) {
        device = source.device
        self.source = source
        self.limit = limit
        state = Mutex(State())
    }

    deinit { releaseCache() }

    /// Storage of at least `byteCount` bytes, its contents undefined.
    ///
    /// Where the limit or the system leaves no room, cached blocks are given back before the request is refused.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)`` when the limit or the system refuses,
    ///   ``TensorError/deviceFailed(_:)``.
    public func allocate(byteCount: Int, purpose: MemoryPurpose) throws(TensorError) -> Storage {
        precondition(byteCount >= 0)
        let size = BlockCache.sizeClass(of: byteCount)
        var reserve: MemoryReserve?
        let address = try state.withLock { state throws(TensorError) -> UInt? in
            if let limit, state.statistics.totalLive + size > limit { return nil }
            reserve = state.reserve
            guard let address = try takeBlock(size, from: &state) else { return nil }
            state.statistics.record(size, purpose: purpose)
            state.statistics.cached = state.heldForReuse
            state.statistics.heldPeak = max(
                state.statistics.heldPeak, state.statistics.totalLive + state.statistics.cached)
            state.highestLive = max(state.highestLive, state.statistics.totalLive)
            return address
        }
        guard let address, let pointer = UnsafeMutableRawPointer(bitPattern: address) else {
            throw .outOfMemory(requested: byteCount, purpose: purpose, statistics: statistics, limit: limit)
        }
        return Storage(pointer: pointer, byteCount: size, purpose: purpose, allocator: self, reserve: reserve)
    }

    /// A snapshot of the accounts.
    public var statistics: MemoryStatistics { state.withLock { $0.statistics } }

    /// Starts the peaks anew from what is live now.
    public func resetPeaks() {
        state.withLock {
            $0.statistics.peak = $0.statistics.live
            $0.statistics.totalPeak = $0.statistics.totalLive
            $0.statistics.heldPeak = $0.statistics.totalLive + $0.statistics.cached
        }
    }

    /// Gives every cached block back to the system.
    public func releaseCache() {
        state.withLock { state in
            state.parked.move(to: &state.cache, waiting: true)
            state.cache.release(downTo: 0, to: source)
            state.statistics.cached = state.heldForReuse
        }
    }

    /// Takes a block back; it is handed out again when all of `uses` are over. One of a reserve goes back there.
    func reclaim(
        _ pointer: UnsafeMutableRawPointer, byteCount: Int, purpose: MemoryPurpose, uses: [Event],
        reserve: MemoryReserve?
    ) {
        // How the work ended does not matter here: it is over.
        if reserve != nil { for use in uses { try? use.wait() } }
        state.withLock { state in
            if let reserve = reserve ?? (uses.isEmpty ? state.reserve : nil) {
                reserve.put(UInt(bitPattern: pointer), size: byteCount)
                state.reservedBytes += byteCount
            } else if uses.isEmpty {
                state.cache.put(UInt(bitPattern: pointer), size: byteCount)
            } else {
                state.parked.put(UInt(bitPattern: pointer), size: byteCount, uses: uses)
            }
            state.statistics.live[purpose.rawValue] -= byteCount
            state.statistics.totalLive -= byteCount
            state.statistics.cached = state.heldForReuse
        }
    }

    /// Lets `move` add the blocks of a reserve to those that anybody may have.
    func takeBack(_ move: (inout BlockCache) -> Void) {
        state.withLock { state in
            let before = state.cache.byteCount
            move(&state.cache)
            state.reservedBytes -= state.cache.byteCount - before
        }
    }

    func setReserve(_ reserve: MemoryReserve?) {
        state.withLock { state in
            precondition(reserve == nil || state.reserve == nil, "one work is recorded at a time")
            state.reserve = reserve
        }
    }

    /// A block of the class `size`: a cached one, else a new one, for which cached ones may have to go.
    private func takeBlock(_ size: Int, from state: inout State) throws(TensorError) -> UInt? {
        if let address = state.reserve?.take(size) {
            state.reservedBytes -= size
            return address
        }
        state.parked.move(to: &state.cache)
        if let address = state.cache.take(size) { return address }
        // A device that records work gives nothing back meanwhile: it would have to wait for itself.
        if state.reserve == nil {
            let needed = state.statistics.totalLive + size
            state.cache.trim(forNew: size, live: needed, highestLive: max(state.highestLive, needed), to: source)
            if let limit {
                let others = state.parked.byteCount + state.reservedBytes
                state.cache.release(downTo: limit - needed - others, to: source)
            }
        }
        var address = try source.allocate(size)
        if address == nil, state.reserve == nil, state.heldForReuse > 0 {
            state.parked.move(to: &state.cache, waiting: true)
            state.cache.release(downTo: 0, to: source)
            address = try source.allocate(size)
        }
        guard let address else { return nil }
        state.statistics.systemAllocations += 1
        return address
    }
}

extension MemoryStatistics {
    mutating func record(_ bytes: Int, purpose: MemoryPurpose) {
        live[purpose.rawValue] += bytes
        totalLive += bytes
        peak[purpose.rawValue] = max(peak[purpose.rawValue], live[purpose.rawValue])
        totalPeak = max(totalPeak, totalLive)
    }
}
