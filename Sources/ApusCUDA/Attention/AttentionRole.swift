/// What a tensor or a number is to attention: how plans of cuDNN and the calls of them agree on which is which.
enum AttentionRole: Int, CaseIterable, Sendable {
    case queries = 1
    case keys, values, out
    /// Log-sum-exp of each query and head.
    case logSumExp
    case outGradient, queryGradient, keyGradient, valueGradient
    /// Numbers: the factor of the scores, what a score that is not seen becomes, and 1.
    case scale, unseen, one
    /// Workspace: for each query and head the sum of out * outGradient.
    case delta
    /// (S, 1, 1, 1) `i32`: the tokens of each sequence that count.
    case queryLengths, keyLengths
    /// Workspace: the gradient of the queries in f32, added up in no fixed order.
    case queryAccumulator
}
