// swift-tools-version: 6.2
import PackageDescription

/// Settings of every Swift target.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

/// A library target; `dependencies` name targets on lower lines only (ARCHITECTURE.md, "Arrows").
func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

/// The tests of the target `name`, which may use all that it may, and the test support.
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: [.init(stringLiteral: name), "ApusTestSupport"] + dependencies,
        swiftSettings: settings)
}

let kernels: [Target.Dependency] = ["ApusKernels", "ApusTensor"]
let network: [Target.Dependency] = ["ApusNN", "ApusCollectives"] + kernels
let model: [Target.Dependency] = ["ApusModels", "ApusExperts"] + network
let training: [Target.Dependency] = ["ApusParallel", "ApusOptim", "ApusData"] + model

let package = Package(
    name: "apus",
    products: [
        .library(name: "Apus", targets: ["Apus"]),
        .executable(name: "apus", targets: ["ApusCLI"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
    ],
    targets: [
        .target(name: "CApusKernels"),
        .target(name: "CApusDrivers"),
        .target(name: "CApusCUDA"),
        .target(name: "CApusReport", exclude: ["page"]),
        library("ApusTensor", ["CApusKernels"]),
        library("ApusKernels", ["ApusTensor", "CApusKernels"]),
        .target(
            name: "ApusCUDA", dependencies: ["ApusCollectives", "CApusDrivers", "CApusCUDA"] + kernels,
            exclude: ["Kernels"],
            swiftSettings: settings),
        library("ApusCollectives", ["ApusTensor", "CApusDrivers"]),
        library("ApusNN", ["ApusCollectives"] + kernels),
        library("ApusExperts", network),
        library("ApusOptim", ["ApusNN"] + kernels),
        library("ApusModels", ["ApusExperts"] + network),
        library("ApusParallel", ["ApusExperts"] + network),
        library("ApusData", ["ApusTensor"]),
        library("ApusTraining", training + ["Yams"]),
        library("ApusInference", ["ApusData"] + model),
        library("ApusReport", ["ApusTraining", "CApusReport"] + training),
        library("ApusSystems", ["ApusTraining"] + training),
        library("Apus", ["ApusTraining", "ApusInference"] + training),
        .executableTarget(
            name: "ApusCLI",
            dependencies: [
                "ApusTraining", "ApusInference", "ApusReport", "ApusSystems", "ApusCUDA",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ] + training,
            swiftSettings: settings),

        library("ApusTestSupport", kernels),
        tests("ApusTensor", ["CApusKernels"]),
        tests("ApusKernels", ["ApusTensor", "CApusKernels"]),
        tests("ApusCUDA", ["CApusDrivers", "ApusTraining"] + training),
        tests("ApusCollectives", ["ApusTensor"]),
        tests("ApusNN", ["ApusCollectives"] + kernels),
        tests("ApusExperts", network),
        tests("ApusModels", ["ApusExperts", "ApusOptim"] + network),
        tests("ApusOptim", network),
        tests("ApusParallel", ["ApusModels", "ApusExperts"] + network),
        tests("ApusData", ["ApusTensor"]),
        tests("ApusTraining", training),
        tests("ApusInference", ["ApusData"] + model),
        tests("ApusReport", ["ApusTraining"] + training),
        tests("ApusSystems", ["ApusTraining"] + training),
        // Run the built command; the dependency makes the build make it first.
        .testTarget(
            name: "EndToEndTests", dependencies: ["ApusCLI", "ApusTestSupport"] + training, swiftSettings: settings),
        .testTarget(name: "ArchitectureTests", dependencies: ["ApusTestSupport"], swiftSettings: settings),
    ],
    cLanguageStandard: .c2x
)
