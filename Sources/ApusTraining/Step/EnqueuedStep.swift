import ApusOptim

/// A step that the device was given. What it came to is read when it has arrived, perhaps after later steps were enqueued.
public struct EnqueuedStep: WorkUnderWay {
    /// The step.
    public let step: Int
    let learningRate: Double
    let readout: StepReadout
    let trainStep: TrainStep
    /// Steps that the optimizer had taken before.
    let stepsBefore: Int
    let sequenceLength: Int
    let read: TrainStep.Reader

    /// Whether the numbers have arrived, so that ``result()`` does not wait.
    public var isComplete: Bool { readout.isComplete }

    /// Blocks until the numbers have arrived.
    public func wait() throws { try readout.wait() }

    /// What the step came to; waits for it.
    ///
    /// Steps are to be asked in their order. One that throws has changed nothing, nor has any that was enqueued after it:
    /// weights, the optimizer's state and count and the routers' biases are those before it, gradients are zero. Those
    /// after it are to be forgotten.
    ///
    /// - Throws: ``NonFiniteError``, naming the step and where it went wrong, whatever was enqueued since; what the device
    ///   ended with.
    public func result() throws -> TrainStep.Result {
        try wait()
        guard readout.isTaken else { throw try trainStep.takeBack(self) }
        return TrainStep.Result(
            loss: readout.loss, divergence: readout.divergence, gradientNorm: readout.gradientNorm,
            routing: readout.routing)
    }
}

extension TrainStep {
    /// Makes the state that of before a step that the device held back, and finds where that step went wrong.
    fileprivate func takeBack(_ held: EnqueuedStep) throws -> NonFiniteError {
        try optimizer.resume(atStep: held.stepsBefore, backend: backend)
        let error = try NonFiniteError(
            step: held.step, loss: held.readout.loss, sequenceLength: held.sequenceLength, held.read, in: self)
        clearGradients()
        return error
    }
}
