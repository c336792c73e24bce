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

/// A test target beside the target it tests.
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
    name: "apus",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
    ],
    targets: [
        .target(name: "CApusKernels"),
        library("ApusTensor", ["CApusKernels"]),
        library("ApusKernels", ["ApusTensor", "CApusKernels"]),
        library("ApusCollectives", ["ApusTensor"]),
        library("ApusNN", ["ApusKernels", "ApusCollectives", "ApusTensor"]),
        library("ApusExperts", ["ApusNN", "ApusKernels", "ApusCollectives", "ApusTensor"]),
        library("ApusModels", ["ApusExperts", "ApusNN", "ApusKernels", "ApusTensor"]),
    ],
    cLanguageStandard: .c2x
)
