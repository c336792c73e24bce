import ApusModels

/// Every key that a recipe can hold, by the group that holds it: the one list that refusals and the writer share.
public enum RecipeKeys {
    /// A group's dotted name (empty for the whole recipe) and its keys, in the order in which they are written.
    public typealias Group = (name: String, keys: [String])

    /// All groups, outer ones first.
    public static let groups: [Group] = [
        ("", ["seed", "model", "data", "training", "distillation", "layout", "output"]),
        (
            "model",
            [
                "preset", "patches", "vocabulary", "layers", "width", "heads", "key_value_heads", "head_width",
                "maximum_positions",
                "norm", "norm_epsilon", "position", "query_key_norm", "attention_bias", "attention_clip",
                "sliding_window", "latent", "convolution", "activation", "feed_forward_width", "tied_embeddings",
                "initial_deviation",
                "initial_scale", "experts",
            ]
        ),
        ("model.patches", ["height", "width", "channels", "size", "classes"]),
        ("model.position", ["kind", "theta", "yarn"]),
        (
            "model.position.yarn", ["factor", "original_positions", "beta_fast", "beta_slow", "mscale", "mscale_all"]
        ),
        (
            "model.latent",
            ["query_rank", "key_value_rank", "plain_width", "rotary_width", "value_width", "pairing"]
        ),
        ("model.convolution", ["layers", "width"]),
        (
            "model.experts",
            [
                "count", "choices", "width", "every", "layers", "share", "activation", "router", "policy", "bank",
                "block_size",
                "losses", "shared_width", "shared_combination", "shortcut", "residual", "dropout",
            ]
        ),
        ("model.experts.shortcut", ["position", "dual"]),
        (
            "model.experts.router",
            [
                "scoring", "renormalize", "weight_scale", "jitter", "gumbel", "bias_rate", "cosine", "groups",
                "nodes", "annealing",
            ]
        ),
        ("model.experts.router.cosine", ["width", "temperature", "floor"]),
        ("model.experts.router.groups", ["count", "chosen", "score"]),
        ("model.experts.router.annealing", ["start", "end", "steps", "threshold"]),
        ("model.experts.policy", ["capacity", "minimum", "order", "evaluation"]),
        ("model.experts.losses", ["balance", "scope", "z", "importance"]),
        (
            "data",
            [
                "path", "sources", "temperature", "vocabulary", "sequence_length", "held_out", "shuffle",
                "document_mask", "verify",
            ]
        ),
        ("data.sources", ["path", "weight"]),
        (
            "training",
            [
                "start", "steps", "batch", "micro_batch", "precision", "optimizer", "schedule", "clip_norm",
                "checkpointing",
                "routing_group", "balance_group", "evaluate_every", "evaluate_batches", "deterministic", "threads",
                "memory_limit",
            ]
        ),
        ("training.optimizer", ["learning_rate", "beta1", "beta2", "epsilon", "weight_decay"]),
        ("training.schedule", ["kind", "warmup_steps", "final_fraction", "decay_steps"]),
        ("distillation", ["teacher", "weight", "temperature", "until", "ending", "start", "layers"]),
        (
            "layout",
            [
                "tensor", "expert", "data", "pipeline", "expert_tensor", "order", "zero", "sequence_parallel",
                "drop_duplicates", "fuse_reduce_scatter", "keep_collectives", "ranks_per_node", "timeout",
            ]
        ),
        ("output", ["save_every", "keep", "log_every"]),
    ]

    /// The keys of the group called `name`.
    static func keys(of name: String) -> [String] { groups.first { $0.name == name }?.keys ?? [] }

    /// What to do about `key`, which the group called `name` does not have.
    static func remedy(unknown key: String, in name: String) -> String {
        let known = keys(of: name)
        if let near = nearestName(to: key, among: known) { return "did you mean \(near)?" }
        let homes = groups.filter { $0.keys.contains(key) }.map { $0.name.isEmpty ? key : "\($0.name).\(key)" }
        if let home = homes.first { return "did you mean \(home)?" }
        return "the keys are \(known.joined(separator: ", "))"
    }
}
