public import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: D model width, F expert width, E experts.

/// The weights of a bank of feed-forward experts, each declared as matrices of its own and computed with as one.
public struct ExpertMatrices {
    /// The first matrices: for each expert (F, D), or gate and up (F, D) each, in turn, for a gated activation.
    public let inputs: [Parameter]
    /// The second matrices, (D, F) each.
    public let outputs: [Parameter]
    /// The non-linearity.
    public let activation: Activation
    /// All first matrices, (E, F, D); gate above up, (E, 2F, D), for a gated activation.
    let inputSpan: ParameterSpan
    /// All second matrices, (E, D, F).
    let outputSpan: ParameterSpan

    /// Matrices that follow one another in the flat buffer, expert by expert.
    public init(inputs: [Parameter], outputs: [Parameter], activation: Activation) {
        let experts = outputs.count
        precondition(experts > 0 && inputs.count == experts * activation.inputsPerOutput)
        // Of what this rank holds: a rank of a tensor-parallel group has a part of F.
        let (width, hidden) = (outputs[0].localShape[0], outputs[0].localShape[1])
        self.inputs = inputs
        self.outputs = outputs
        self.activation = activation
        inputSpan = ParameterSpan(inputs, shape: Shape(experts, hidden * activation.inputsPerOutput, width))
        outputSpan = ParameterSpan(outputs, shape: Shape(experts, width, hidden))
    }

    /// E.
    public var experts: Int { outputs.count }
    /// D.
    var width: Int { outputSpan.weightShape[1] }
    /// F.
    var hidden: Int { outputSpan.weightShape[2] }
    /// The first of an expert's hidden units that is here, and how many it has on all ranks.
    var hiddenPlace: (first: Int, total: Int) {
        (outputs[0].shard.map { $0.dimension == 1 ? $0.range.lowerBound : 0 } ?? 0, outputs[0].shape[1])
    }
    /// Columns of the first product: F, or 2F for a gated activation.
    var inputWidth: Int { inputSpan.weightShape[1] }

    /// The matrices of a contiguous range of the experts.
    func restricted(to experts: Range<Int>) -> ExpertMatrices {
        let stride = activation.inputsPerOutput
        return ExpertMatrices(
            inputs: Array(inputs[experts.lowerBound * stride..<experts.upperBound * stride]),
            outputs: Array(outputs[experts]), activation: activation)
    }
}
