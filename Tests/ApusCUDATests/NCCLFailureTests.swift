import ApusCollectives
import ApusKernels
import ApusTensor
import CApusDrivers
import Synchronization
import Testing

@testable import ApusCUDA

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
            let begin = ContinuousClock.now
            let words = reason { try gpus.allReduce(x, into: x, layer: 3) }
            #expect(begin.duration(to: .now) < .seconds(10))
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
