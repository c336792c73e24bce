public import ApusKernels

extension CUDABackend: ClockOp {
    public func timeMark() throws -> any TimeMark {
        try refuseWhileRecording("a time mark")
        return CUDATimeMark(event: try CUDAEvent(on: queue, isTimed: true))
    }
}

/// A timed event of a backend's stream.
private struct CUDATimeMark: TimeMark {
    let event: CUDAEvent

    var isComplete: Bool { event.isComplete }

    func wait() throws { try event.wait() }

    func seconds(since begin: any TimeMark) throws -> Double {
        guard let begin = begin as? CUDATimeMark else { preconditionFailure("both marks are a GPU's") }
        // The earlier one is over when this one is.
        try event.wait()
        return try event.seconds(since: begin.event)
    }
}
