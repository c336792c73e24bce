import Glibc

/// Where rank 0's watchdog listens, and the secret that tells this world's ranks from strangers.
struct WatchAddress: Sendable, Equatable {
    let token: UInt64
    let port: UInt16
    /// Rank 0's host name, by which ranks of the same machine know it.
    let host: String
    /// IPv4 addresses of rank 0's machine.
    let addresses: [String]

    /// Bytes of ``message``, a size that all ranks know beforehand.
    static let messageSize = 1024

    init(token: UInt64, port: UInt16, host: String, addresses: [String]) {
        self.token = token
        self.port = port
        self.host = host
        self.addresses = addresses
    }

    /// For MPI to carry to all ranks.
    var message: [UInt8] {
        var words = [String(token), String(port), host]
        var bytes: [UInt8] = []
        for address in addresses {
            words.append(address)
            let next = Array(words.joined(separator: " ").utf8)
            if next.count > WatchAddress.messageSize { break }
            bytes = next
        }
        return bytes + Array(repeating: 0, count: WatchAddress.messageSize - bytes.count)
    }

    /// Reads ``message``; `nil` for one that a rank which could not listen has sent.
    init?(message: [UInt8]) {
        let words = String(decoding: message.prefix { $0 != 0 }, as: UTF8.self).split(separator: " ").map(String.init)
        guard words.count > 3, let token = UInt64(words[0]), let port = UInt16(words[1]) else { return nil }
        self.init(token: token, port: port, host: words[2], addresses: Array(words[3...]))
    }

    /// This machine's name.
    static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        gethostname(&name, name.count - 1)
        let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.isEmpty ? "localhost" : text
    }

    /// This machine's IPv4 addresses that others may reach.
    static var machineAddresses: [String] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var addresses: [String] = []
        for entry in sequence(first: first, next: { $0?.pointee.ifa_next }) {
            guard let entry, let address = entry.pointee.ifa_addr, address.pointee.sa_family == sa_family_t(AF_INET),
                entry.pointee.ifa_flags & UInt32(IFF_LOOPBACK) == 0
            else { continue }
            let number = address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_addr }
            addresses.append(text(number))
        }
        return addresses
    }

    private static func text(_ address: in_addr) -> String {
        let number = UInt32(bigEndian: address.s_addr)
        return [24, 16, 8, 0].map { String(number >> $0 & 255) }.joined(separator: ".")
    }
}

/// Sockets that the watchdog and its ranks meet through.
enum WatchSocket {
    /// Listens on a port of the system's choice, for this machine alone or for all.
    ///
    /// - Throws: ``MPIProblem/unwatched(reason:)``.
    static func listen(isOneMachine: Bool) throws(MPIProblem) -> (descriptor: Int32, address: WatchAddress) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw .unwatched(reason: systemWords()) }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        var name = socketName(isOneMachine ? "127.0.0.1" : "0.0.0.0", port: 0)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withGeneric(&name) { pointer in
            bind(descriptor, pointer, size) == 0 && Glibc.listen(descriptor, 4096) == 0
                && getsockname(descriptor, pointer, &size) == 0
        }
        guard isListening else {
            let words = systemWords()
            close(descriptor)
            throw .unwatched(reason: words)
        }
        let addresses = isOneMachine ? [] : WatchAddress.machineAddresses
        let address = WatchAddress(
            token: UInt64.random(in: 1 ... .max), port: UInt16(bigEndian: name.sin_port), host: WatchAddress.hostName,
            addresses: addresses + (isOneMachine || addresses.isEmpty ? ["127.0.0.1"] : []))
        return (descriptor, address)
    }

    /// Connects to the watchdog at the first of its addresses where it answers.
    ///
    /// A connection over which this rank has named itself stays open until one is answered: the watchdog may only be slow, and
    /// would take a rank whose connection closes for lost.
    ///
    /// - Parameter pause: How long each address is waited for before the next is tried too.
    /// - Throws: ``MPIProblem/unwatched(reason:)`` when there is none within `patience`.
    static func connect(
        to address: WatchAddress, rank: Int, patience: Duration, pause: Duration = .seconds(3)
    ) throws(MPIProblem) -> WatchConnection {
        let isNeighbour = address.host == WatchAddress.hostName
        let loopback = "127.0.0.1"
        let candidates = isNeighbour ? [loopback] + address.addresses.filter { $0 != loopback } : address.addresses
        let deadline = ContinuousClock.now + patience
        var words = "no address"
        var asked: [String: WatchConnection] = [:]
        repeat {
            for candidate in candidates {
                if asked[candidate] == nil {
                    guard let descriptor = connect(candidate, address.port) else {
                        words = "\(candidate) port \(address.port): \(systemWords())"
                        continue
                    }
                    let connection = WatchConnection(descriptor)
                    connection.send(.hello(token: address.token, rank: rank))
                    asked[candidate] = connection
                    words = "\(candidate) port \(address.port) does not answer"
                }
                if let answered = answered(asked.values, within: pause) { return answered }
                asked = asked.filter { !$0.value.isClosed }
            }
            usleep(50_000)
        } while .now < deadline
        throw .unwatched(reason: words)
    }

    /// The connection over which the watchdog greets back. Whoever knows the world does; a stranger at the same address does
    /// not. What follows the greeting is for the watch.
    private static func answered(_ asked: some Collection<WatchConnection>, within pause: Duration) -> WatchConnection?
    {
        _ = poll(asked.map { ($0.descriptor, Int16(POLLIN)) }, milliseconds: pause.microseconds / 1000)
        return asked.first { connection in
            if case .alive? = connection.receive(limit: 1).first { true } else { false }
        }
    }

    /// Takes the next connection that waits.
    static func accept(_ listener: Int32) -> WatchConnection? {
        let descriptor = Glibc.accept(listener, nil, nil)
        return descriptor >= 0 ? WatchConnection(descriptor) : nil
    }

    /// Claims a name among the processes of this machine until the process ends; `nil` when another has it.
    static func claim(_ name: String) -> Int32? {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        if withLocalName(name, { bind(descriptor, $0, $1) }) == 0, Glibc.listen(descriptor, 8) == 0 {
            return descriptor
        }
        close(descriptor)
        return nil
    }

    /// Whether a process of this machine has claimed a name.
    static func isClaimed(_ name: String) -> Bool {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        let status = withLocalName(name) { Glibc.connect(descriptor, $0, $1) }
        return status == 0 || errno == EAGAIN
    }

    /// Tries one address for a second.
    private static func connect(_ address: String, _ port: UInt16) -> Int32? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        var name = socketName(address, port: port)
        let status = withGeneric(&name) { Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        if status == 0 { return descriptor }
        if errno == EINPROGRESS {
            var failure: Int32 = ETIMEDOUT
            if poll([(descriptor, Int16(POLLOUT))], milliseconds: 1000).contains(descriptor) {
                var size = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size)
            }
            if failure == 0 { return descriptor }
            close(descriptor)
            errno = failure
            return nil
        }
        let failure = errno
        close(descriptor)
        errno = failure
        return nil
    }

    private static func socketName(_ address: String, port: UInt16) -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        inet_pton(AF_INET, address, &name.sin_addr)
        return name
    }

    private static func withGeneric<Result>(
        _ name: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>) -> Result
    ) -> Result {
        withUnsafeMutablePointer(to: &name) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1, body) }
    }

    /// A name that lives in no folder: it begins with a zero, and goes with the process.
    private static func withLocalName<Result>(
        _ name: String, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(name.utf8.prefix(100))
        withUnsafeMutableBytes(of: &address.sun_path) { path in
            for (index, byte) in bytes.enumerated() { path[index + 1] = byte }
        }
        let size = socklen_t(MemoryLayout<sa_family_t>.size + 1 + bytes.count)
        return withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, size) }
        }
    }

    private static func systemWords() -> String { String(cString: strerror(errno)) }
}
