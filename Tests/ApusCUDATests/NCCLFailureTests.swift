import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import CApusDrivers
import Glibc
import Synchronization
import Testing

@testable import ApusCUDA
@testable import ApusParallel

extension CUDATests {
    /// Ranks that do not come, and an NCCL that is missing, too old, or fails.
    @Suite struct `Exchanges between GPUs that fail` {
        init() {
            FakeDriver.reset()
            FakeCompiler.reset()
            FakeNCCL.reset()
        }

        /// The only seen one of two ranks.
        private func rank(
            timeout: Duration = .seconds(60)
        ) throws -> (backend: CUDABackend, host: FakeHost, gpus: NCCLCollective) {
            let backend = try FakeDriver.backend()
            let host = FakeHost(members: [0, 1], timeout: timeout)
            let gpus = try CUDAWorld.collective(over: host, on: backend, library: FakeNCCL.library())
            _ = (host.takeCalls(), FakeNCCL.takeCalls())
            return (backend, host, gpus)
        }

        private func reason(_ body: () throws -> Void) -> String? {
            do {
                try body()
                return nil
            } catch {
                guard case .aborted(_, let reason)? = error as? CollectiveError else { return "another: \(error)" }
                return reason
            }
        }

        @Test func `a library that is missing or too old is named, with what to install`() {
            let none = LibraryLoader(library: "NCCL", names: "libapus-none.so.2", needed: LibraryVersion(2, 18))
            do {
                _ = try none.table(apus_nccl_load)
                Issue.record("it is not there")
            } catch {
                let text = "\(error)"
                #expect(text.hasPrefix("NCCL was not found (libapus-none.so.2: cannot open"))
                #expect(text.contains("needed is 2.18 or later (") && text.contains("apt-get install libnccl2"))
                #expect(!text.contains("\n"))
            }
            FakeNCCL.state.withLock { $0.version = 21705 }
            #expect(throws: LibraryProblem.tooOld(library: "NCCL", needed: "2.18", found: "2.17")) {
                try FakeNCCL.library()
            }
        }

        @Test func `an operation that does not end is given up, and NCCL with it`() throws {
            let (backend, host, gpus) = try rank(timeout: .milliseconds(300))
            let x = try backend.empty(Shape(8), .f32)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let sum = try gpus.startAllReduce(x, into: x, layer: 3)
            // The stream computes for longer than an exchange may take, and then comes to this one.
            usleep(600_000)
            #expect(gpus.world.failure == nil)
            let begin = ContinuousClock.now
            FakeDriver.finishEvents(besides: 1)
            let words = reason { try sum.ready?.wait() }
            let waited = begin.duration(to: .now)
            #expect(waited > .milliseconds(300) && waited < .seconds(10))
            #expect(
                words?.hasPrefix(
                    "time-out: rank 0 waited 0.3 seconds in all-reduce (sum) of 8 f32, call 1 on world (NCCL), layer 3")
                    == true)
            #expect(FakeNCCL.hasSeen("abort"))
            #expect(host.takeCalls().contains { $0.hasPrefix("abort: time-out") })
            // Nothing reaches NCCL any more.
            _ = FakeNCCL.takeCalls()
            #expect(reason { try gpus.allReduce(x, into: x) } == words)
            #expect(reason { _ = try gpus.startSend(x, to: 1) } == words)
            #expect(FakeNCCL.takeCalls() == [])
        }

        @Test func `a call that fails ends its group, the world, and NCCL`() throws {
            let (backend, _, gpus) = try rank()
            let x = try backend.empty(Shape(2, 4), .f32)
            FakeNCCL.state.withLock { $0.failures["receive 4 of 7 from 0"] = 6 }
            let words = reason { try gpus.allToAll(x, into: x) }
            #expect(
                words?.hasPrefix(
                    "all-to-all of 8 f32, call 1 on world (NCCL): ncclRecv of 4 f32 from rank 0 failed: "
                        + "remote process exited (6), socket closed") == true)
            #expect(FakeNCCL.state.withLock { $0.openGroups } == 0)
            #expect(FakeNCCL.hasSeen("abort"))
            #expect(
                FakeNCCL.takeCalls() == [
                    "group_start", "send 4 of 7 to 0", "receive 4 of 7 from 0", "group_end", "abort",
                ])
            #expect(reason { try gpus.allReduce(x, into: x) } == words)
        }

        @Test func `what NCCL finds out by itself ends the operations under way`() throws {
            let (backend, _, gpus) = try rank()
            let x = try backend.empty(Shape(8), .f32)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let sum = try gpus.startAllReduce(x, into: x)
            FakeNCCL.state.withLock { $0.asynchronous = 6 }
            let words = reason { try sum.ready?.wait() }
            #expect(words?.contains("NCCL: remote process exited, socket closed") == true)
            #expect(FakeNCCL.hasSeen("abort"))
        }

        @Test func `an abort reaches whoever waits, and messages that never began`() throws {
            let (backend, host, gpus) = try rank()
            let x = try backend.empty(Shape(8), .f32)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let sum = try gpus.startAllReduce(x, into: x)
            let sent = try gpus.startSend(x, to: 1)
            gpus.abort(reason: "rank 1 is gone")
            #expect(reason { try sum.ready?.wait() } == "rank 1 is gone")
            #expect(reason { try sent.wait() } == "rank 1 is gone")
            #expect(host.takeCalls() == ["abort: rank 1 is gone"])
            #expect(FakeNCCL.hasSeen("abort"))
            #expect(FakeNCCL.takeCalls() == ["all_reduce 8 of 7 by 0", "abort"])
        }

        @Test func `an abort that hangs holds up neither the others nor whoever ends the world`() throws {
            let (_, _, gpus) = try rank()
            _ = try gpus.split(name: "one", color: 1)
            let backend = gpus.world.backend
            let three = FakeHost(name: "pair", members: [1, 0])
            _ = try gpus.world.communicator(over: three, DeviceCalls(over: three, carrier: "NCCL"))
            #expect(FakeNCCL.takeCalls() == ["make_id", "initialize 0 of 2"])
            // The world's, which is the first.
            FakeNCCL.state.withLock { $0.hanging = 2 }
            let x = try backend.empty(Shape(8), .f32)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let sum = try gpus.startAllReduce(x, into: x)
            gpus.abort(reason: "rank 1 is gone")
            #expect(reason { try sum.ready?.wait() } == "rank 1 is gone")
            #expect(FakeNCCL.hasSeen("abort"), "the other communicator's")
            for _ in 0..<1000 where gpus.world.abortProblem == nil { usleep(10_000) }
            #expect(
                gpus.world.abortProblem?.hasPrefix("NCCL has not aborted 1 of 2 communicators within 2.0 seconds")
                    == true)
            FakeNCCL.state.withLock { state in
                state.hanging = nil
                state.calls = []
            }
            #expect(FakeNCCL.hasSeen("abort"), "what hung is left to itself")
        }

        @Test func `numbers on their way to a rank do not outlast the world`() throws {
            let (backend, _, gpus) = try rank(timeout: .milliseconds(300))
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let numbers = try Tape(backend: backend).startToTell([3, 4], over: gpus, layer: 2)
            FakeDriver.finishEvents(besides: 1)
            // The driver would wait for a copy of what nobody sends, and then give what happened to be there.
            #expect(reason { _ = try numbers.wait() }?.hasPrefix("time-out: rank 0 waited 0.3 seconds") == true)
            #expect(FakeNCCL.hasSeen("abort"))
        }

        @Test func `a communicator that cannot be made says why`() throws {
            let backend = try FakeDriver.backend()
            FakeNCCL.state.withLock { $0.failures["initialize 0 of 2"] = 5 }
            do {
                _ = try CUDAWorld.collective(
                    over: FakeHost(members: [0, 1]), on: backend, library: FakeNCCL.library())
                Issue.record("NCCL refused")
            } catch {
                #expect("\(error)".hasPrefix("ncclCommInitRankConfig of 2 ranks failed: remote process exited (5)"))
            }
        }

        @Test func `a process takes the device of its place, or the only one that it is shown`() throws {
            #expect(try CUDADevice.ordinal(forProcess: 3, of: 4) == 3)
            #expect(try CUDADevice.ordinal(forProcess: 3, of: 1) == 0)
            #expect(throws: LibraryProblem.noSuchDevice(ordinal: 2, count: 2)) {
                try CUDADevice.ordinal(forProcess: 2, of: 2)
            }
            #expect(throws: LibraryProblem.noDevice) { try CUDADevice.ordinal(forProcess: 0, of: 0) }
        }
    }
}
