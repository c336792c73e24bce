import ApusExperts

extension Preset {
    /// DeepSeek-V2, its Lite form and V3 (2024; sections 3.1.2, B and 4.2, and their public configurations), without V3's layer
    /// that predicts a further token.
    static let deepSeek = [
        Preset("deepseek-v2") {
            let moe = MoEConfiguration(
                experts: 160, choices: 6, width: 1536,
                router: RouterConfiguration(
                    weightScale: 16, groupLimit: GroupLimit(groups: 8, chosen: 3, score: .best)),
                losses: RouterLosses(balance: 0.001), sharedWidth: 2 * 1536)
            return deepSeek(
                vocabulary: 102_400, width: 5120, heads: 128, queryRank: 1536, mscale: 0.707,
                [.dense(width: 12_288)] + Array(repeating: .moe(moe), count: 59))
        },
        Preset("deepseek-v2-lite") {
            let moe = MoEConfiguration(
                experts: 64, choices: 6, width: 1408, losses: RouterLosses(balance: 0.001), sharedWidth: 2 * 1408)
            return deepSeek(
                vocabulary: 102_400, width: 2048, heads: 16, queryRank: nil, mscale: 0.707,
                [.dense(width: 10_944)] + Array(repeating: .moe(moe), count: 26))
        },
        Preset("deepseek-v3") {
            let moe = MoEConfiguration(
                experts: 256, choices: 8, width: 2048,
                router: RouterConfiguration(
                    scoring: .sigmoid, renormalizes: true, weightScale: 2.5, biasRate: HubFamily.deepSeekBiasRate,
                    groupLimit: GroupLimit(groups: 8, chosen: 4, score: .bestTwo)),
                losses: RouterLosses(balance: 0.001), sharedWidth: 2048)
            return deepSeek(
                vocabulary: 129_280, width: 7168, heads: 128, queryRank: 1536, mscale: 1,
                Array(repeating: .dense(width: 18_432), count: 3) + Array(repeating: .moe(moe), count: 58))
        },
    ]

    private static func deepSeek(
        vocabulary: Int, width: Int, heads: Int, queryRank: Int?, mscale: Double,
        _ feedForward: [ModelConfiguration.FeedForward]
    ) -> ModelConfiguration {
        ModelConfiguration(
            vocabulary: vocabulary, width: width, heads: heads, maximumPositions: 163_840, normEpsilon: 1e-6,
            feedForward: feedForward,
            latent: LatentConfiguration(
                queryRank: queryRank, keyValueRank: 512, plainWidth: 128, rotaryWidth: 64, valueWidth: 128),
            yarn: YarnConfiguration(factor: 40, originalPositions: 4096, mscale: mscale, mscaleAll: mscale))
    }
}
