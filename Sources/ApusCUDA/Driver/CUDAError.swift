/// A call of a CUDA library that failed.
public struct CUDAError: Error, Sendable {
    /// The function that was called.
    public let call: String
    /// The code that it returned.
    public let code: Int
    /// The code's name: `CUDA_ERROR_ILLEGAL_ADDRESS`.
    public let name: String
    /// What the library says of the code, or a compiler's report; empty when it says nothing.
    public let explanation: String
    /// Where the call was made.
    public let file: String
    /// The line of the call.
    public let line: Int

    init(call: String, code: Int, name: String, explanation: String = "", file: StaticString, line: Int) {
        self.call = call
        self.code = code
        self.name = name
        self.explanation = explanation
        self.file = "\(file)"
        self.line = line
    }
}

extension CUDAError: CustomStringConvertible {
    /// `cuMemAlloc failed: CUDA_ERROR_INVALID_VALUE (1), invalid argument, at ApusCUDA/DeviceMemory.swift:20`.
    public var description: String {
        let words = explanation.isEmpty ? "" : ", \(explanation)"
        return "\(call) failed: \(name) (\(code))\(words), at \(file):\(line)"
    }
}
