// The whole of Apus for a program that imports one module.

@_exported import ApusCollectives
@_exported import ApusData
@_exported import ApusExperts
@_exported import ApusInference
@_exported import ApusKernels
@_exported import ApusModels
@_exported import ApusNN
@_exported import ApusOptim
@_exported import ApusTensor
@_exported import ApusTraining
