"""The rows of the quality report: what is trained, what is compared with what, and which sentence of a paper that tests."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scale:
    """How large the base recipe is made; `settings` are its changes. Steps are those of a whole run."""
    name: str
    layers: int
    expert_width: int
    experts: int
    steps: int
    guess: float                # Seconds of a whole run, before any was measured.
    settings: dict = field(default_factory=dict)


def small(name, *, layers, width, experts, steps, sequence, batch, guess):
    """A scale for a CPU: bytes instead of tokens."""
    return Scale(name, layers, width, experts, steps, guess, {
        "model.vocabulary": 257, "model.layers": layers, "model.width": width, "model.heads": 4,
        "model.key_value_heads": 2, "model.experts.count": experts, "model.experts.width": width,
        "data.sequence_length": sequence, "data.held_out": 0.05, "training.batch": batch, "training.steps": steps,
        "training.precision": "f32", "training.optimizer.learning_rate": 0.002,
        "training.schedule.warmup_steps": max(1, steps // 10), "training.evaluate_every": steps})


SCALES = {
    "gpu": Scale("gpu", 8, 512, 16, 1240, 45),
    "cpu": small("cpu", layers=4, width=96, experts=8, steps=300, sequence=128, batch=16, guess=25),
    "smoke": small("smoke", layers=4, width=16, experts=8, steps=4, sequence=16, batch=8, guess=1),
}


@dataclass(frozen=True)
class Job:
    """Something that is trained or measured for each seed.

    parents: names of jobs whose checkpoints it needs; "name+100" is the job under a seed 100 higher.
    surgery: the words of an apus command that makes a model of them; {0}, {1} and {data} stand for paths, {seed} for the seed.
    teacher: whether the parent is a teacher, which the run is held to.
    evaluates: whether the model that surgery makes is measured as it is, not trained on.
    """
    name: str
    settings: dict = field(default_factory=dict)
    parents: tuple = ()
    surgery: tuple = ()
    teacher: bool = False
    evaluates: bool = False
    seed_shift: int = 0
    base: str = "text"

    @property
    def pool(self):
        """Jobs whose seeds spread alike."""
        return f"{self.base}, pruned" if self.evaluates else self.base


@dataclass(frozen=True)
class Comparison:
    ours: str
    reference: str
    claim: str = "lower"        # The held-out loss of ours: lower, higher or equal.


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    claim: str
    source: str
    comparisons: tuple
    note: str = ""

    @property
    def jobs(self):
        """The names of the jobs compared, in order, each once."""
        return list(dict.fromkeys(name for c in self.comparisons for name in (c.reference, c.ours)))


def settings(scale, job):
    """A job's --set options: those of its scale, less what it replaces, and its own."""
    own = job.settings
    if job.base == "vision":
        if scale.name != "smoke":
            return own
        return {name: value for name, value in own.items() if not name.startswith("training.")} | {
            "training.steps": 2, "training.schedule.warmup_steps": 1}
    replaced = [group for group, value in own.items() if value is None or isinstance(value, dict)]
    return {name: value for name, value in scale.settings.items()
            if not any(name.startswith(group + ".") for group in replaced)} | own


CONTINUED = 50                  # Added to the seed of a run that goes on, so that it does not read the same text again.


def jobs(scale):
    """Every job of a scale, by name."""
    layers, width, count, steps = scale.layers, scale.expert_width, scale.experts, scale.steps
    half = steps // 2
    warm = max(1, steps // 10)
    expert = "model.experts."
    one = {expert + "choices": 1, expert + "router.renormalize": False}
    dense = {"model.experts": None, "model.feed_forward_width": 2 * width}
    every_other = {expert + "every": 2, "model.feed_forward_width": 2 * width}
    residual = one | {expert + "residual": True}
    pyramid = [count // 2] * (layers - layers // 4) + [count] * (layers // 4)
    student = residual | {"model.layers": layers - 1, expert + "count": pyramid[1:]}
    shared = every_other | one | {expert + "shared_width": width, expert + "shared_combination": "gate"}
    sigmoid = {expert + "router.scoring": "sigmoid"}
    begun = {"training.steps": half, "training.evaluate_every": half,
             "training.schedule": {"kind": "constant", "warmup_steps": warm}}
    whole_half = {"training.steps": half, "training.evaluate_every": half,
                  "training.schedule.warmup_steps": max(1, warm // 2)}

    def capacity(factor, order):
        return {expert + "policy": {"capacity": factor, "order": order, "evaluation": 2.0},
                "training.routing_group": 8}

    def shortcut(position, combination="gate"):
        return shared | {expert + "shortcut.position": position, expert + "shared_combination": combination}

    # What `apus upcycle` makes of the dense model: its own width in each expert, every second layer.
    upcycled = {"model.feed_forward_width": 2 * width, expert + "every": 2, expert + "count": count // 2,
                expert + "width": 2 * width}
    upcycle = ("upcycle", "{0}", "--experts", str(count // 2), "--z-loss", "0.001", "--seed", "{seed}")
    return {job.name: job for job in [
        Job("moe"),
        Job("dense", dense),
        Job("capacity-1", capacity(1.0, "position")),
        Job("capacity-1.5", capacity(1.5, "position")),
        Job("capacity-1-random", capacity(1.0, "random")),
        Job("first-half", {"model.feed_forward_width": 2 * width, expert + "layers": list(range(layers // 2))}),
        Job("second-half", {"model.feed_forward_width": 2 * width, expert + "layers": list(range(layers // 2, layers))}),
        Job("top-1", one),
        Job("residual", residual),
        Job("pr-moe", residual | {expert + "count": pyramid}),
        Job("student", student),
        Job("student-full", student, ("pr-moe",), teacher=True),
        Job("student-staged", student | {"distillation.until": steps * 7 // 10}, ("pr-moe",), teacher=True),
        Job("top-2-pairs", every_other),
        Job("shared", shared),
        Job("scmoe-1", shortcut(1)),
        Job("scmoe-2", shortcut(2)),
        Job("scmoe-3", shortcut(3)),
        Job("scmoe-2-sum", shortcut(2, "sum")),
        Job("scmoe-2-softmax", shortcut(2, "softmax")),
        Job("dts", {expert + "choices": count, expert + "router.renormalize": False, expert + "router.annealing": {
            "start": 2.0, "end": 0.3, "steps": max(1, steps // 4), "threshold": 0.05}}),
        Job("sigmoid", sigmoid),
        Job("sigmoid-bias", sigmoid | {expert + "router.bias_rate": 0.001, expert + "losses.balance": 0}),
        Job("few-begun", begun | {expert + "count": count // 2}),
        Job("few-on", whole_half | {expert + "count": count // 2}, ("few-begun",), seed_shift=CONTINUED),
        Job("aoe", whole_half, ("few-begun", "few-begun+100"), ("aggregate", "{0}", "{1}"), seed_shift=CONTINUED),
        Job("dense-begun", begun | dense),
        Job("dense-on", whole_half | dense, ("dense-begun",), seed_shift=CONTINUED),
        Job("upcycled", whole_half | upcycled, ("dense-begun",), upcycle, seed_shift=CONTINUED),
        Job("scratch-half", whole_half | upcycled, seed_shift=CONTINUED),
        Job("start", {"training.steps": 1, "training.schedule.warmup_steps": 1,
                      "training.optimizer.learning_rate": 1e-6}),
        *pruned("moe", "start", count, [count * 3 // 4, count // 2, count // 4], "65536"),
        *vision_jobs(),
    ]}


def pruned(parent, start, count, keeps, most_tokens, base="text"):
    """A trained model whole, and with some of its experts by each criterion."""
    prefix = "" if base == "text" else "vision-"
    yield Job(f"{prefix}all-{count}", parents=(parent,), evaluates=True, base=base)
    for keep in keeps:
        tail = ("--keep", str(keep))
        if base == "text":      # `apus prune` counts choices over text alone.
            yield Job(f"used-{keep}", {}, (parent,), ("prune", "{0}", "--by", "utilization", "--data", "{data}",
                                                      "--max-tokens", most_tokens, *tail), evaluates=True)
        yield Job(f"{prefix}norm-{keep}", {}, (parent, start),
                  ("prune", "{0}", "--by", "router-norm", "--base", "{1}", *tail), evaluates=True, base=base)
        yield Job(f"{prefix}random-{keep}", {}, (parent,),
                  ("prune", "{0}", "--by", "random", "--seed", "{seed}", *tail), evaluates=True, base=base)


def vision_jobs():
    """On Recipes/vision.yaml, of whatever scale the text is. Experts of half the width: two of them cost a dense block."""
    experts = {"every": 2, "count": 8, "choices": 2, "width": 128, "router": {"renormalize": True},
               "losses": {"balance": 0.01}}
    equal = {"model.experts.width": 64}
    dense = {"model.experts": None}
    begun = {"training.steps": 150, "training.schedule": {"kind": "constant", "warmup_steps": 30}}
    half = {"training.steps": 150, "training.schedule.warmup_steps": 15}
    return [
        Job("vision-moe", equal, base="vision"),
        Job("vision-dense", dense, base="vision"),
        Job("vision-begun", begun | dense, base="vision"),
        Job("vision-dense-on", half | dense, ("vision-begun",), base="vision", seed_shift=CONTINUED),
        Job("vision-upcycled", half | {"model.experts": experts}, ("vision-begun",),
            ("upcycle", "{0}", "--experts", "8", "--seed", "{seed}"), base="vision", seed_shift=CONTINUED),
        Job("vision-scratch-half", half | {"model.experts": experts}, base="vision", seed_shift=CONTINUED),
        Job("vision-start", equal | {"training.steps": 1, "training.schedule.warmup_steps": 1,
                                     "training.optimizer.learning_rate": 1e-6}, base="vision"),
        *pruned("vision-moe", "vision-start", 8, [6, 4, 2], "", base="vision"),
    ]


def rows(scale):
    """The report's rows, those first that most else rests on."""
    count = scale.experts
    keeps = [count * 3 // 4, count // 2, count // 4]

    def against(reference, *ours, claim="lower"):
        return tuple(Comparison(name, reference, claim) for name in ours)

    def curve(keeps, prefix=""):
        return tuple(Comparison(f"{prefix}{ours}-{keep}", f"{prefix}random-{keep}")
                     for keep in keeps for ours in (("norm",) if prefix else ("used", "norm")))

    return [
        Row("dense", "Mixture against dense, equal active FLOPs",
            "dropless mixtures reach a dense model's loss 1.8 to 2.4 times sooner", "MegaBlocks, section 6",
            against("dense", "moe"), "Seen here would be a lower loss after as many tokens."),
        Row("dropless", "Dropless against a capacity of 1.0 and 1.5",
            "dropping tokens loses quality: with capacity 1 the gain over dense is 0.15, without a limit 0.26",
            "MegaBlocks, sections 3 and 6", against("capacity-1", "moe") + against("capacity-1.5", "moe"),
            "Trained with the capacity, counted over 4096 tokens (1024 at the small scale), and evaluated with 2.0."),
        Row("halves", "Experts in the second half against the first half",
            "experts in later layers help more: Second-Half-MoE beats First-Half-MoE", "DeepSpeed-MoE, section 4.1",
            against("first-half", "second-half")),
        Row("residual", "Residual mixture against top-2 and top-1",
            "a dense expert beside one chosen expert is as good as top-2, at the communication of top-1",
            "DeepSpeed-MoE, section 4.1",
            against("moe", "residual", claim="equal") + against("top-1", "residual"),
            "Top-1 has half the active feed-forward parameters. Times and bytes are in the part on numbers."),
        Row("pyramid", "PR-MoE against the standard mixture", "fewer parameters, and a loss about 0.01 from the standard's",
            "DeepSpeed-MoE, section 4.1", against("moe", "pr-moe", claim="equal")),
        Row("students", "A student with no, full and staged distillation",
            "distillation to the end holds a student back; stopped early it helps", "DeepSpeed-MoE, section 4.2",
            against("student", "student-full", "student-staged") + against("student-full", "student-staged"),
            "The teacher is pr-moe, the student has a layer less; staged ends after seven tenths of the steps."),
        Row("scmoe", "ScMoE: positions and combinations, against top-2 and a shared expert",
            "the shortcut from position 2 is best; the gate CG-1 beats CG-2 and the plain sum; all beat top-2",
            "ScMoE, its ablations",
            against("top-2-pairs", "shared", "scmoe-1", "scmoe-2", "scmoe-3")
            + against("shared", "scmoe-2") + against("scmoe-1", "scmoe-2") + against("scmoe-3", "scmoe-2")
            + against("scmoe-2-sum", "scmoe-2") + against("scmoe-2-softmax", "scmoe-2"),
            "Every second layer is a mixture, the others are dense; all dropless. Shared has the gate CG-1 too."),
        Row("rts", "Random token selection against position order", "a fair draw of who is dropped converges better",
            "Z-code M3, on training methods", against("capacity-1", "capacity-1-random")),
        Row("dts", "DTS-Gate against a fixed top-1 gate", "beginning dense reaches the same loss in half the time",
            "EvoMoE, on its dense-to-sparse gate", against("top-1", "dts"),
            "By steps, not time: while the gate anneals, over a quarter of the steps, a token meets up to all experts."),
        Row("bias", "Selection bias against balance loss", "balancing by a bias instead of a loss gives a better model",
            "DeepSeek-V3, section 2.1.2", against("sigmoid", "sigmoid-bias")),
        Row("aoe", "Aggregation of experts against training on",
            "a model of two models' experts goes on better than what it was made of", "Z-code M3, on training methods",
            against("few-on", "aoe"), "The second model is trained besides: aggregation has had half again as many tokens."),
        Row("upcycling", "Upcycling against dense continuation and against scratch",
            "half of the dense cost more gives a mixture better than dense training goes on, and than one from scratch",
            "Sparse upcycling, section 4", against("dense-on", "upcycled") + against("scratch-half", "upcycled"),
            "Both go on from the same dense model of half the steps. Scratch has the upcycled model's shape and the second"
            " half's steps alone. The mixtures' active parameters are above the dense model's, as in the paper."),
        Row("pruning", "Pruning by use, by the router's change and at random",
            "experts that are used most, or whose router changed most, are those to keep",
            "Z-code M3, on inference; provable expert pruning", curve(keeps),
            "Evaluated as pruned, not trained on."),
        Row("vision-dense", "Images: mixture against dense, equal active FLOPs", "V-MoE beats a dense ViT of its cost",
            "V-MoE, its experiments", against("vision-dense", "vision-moe")),
        Row("vision-upcycling", "Images: upcycling against dense continuation and scratch",
            "an upcycled ViT beats the dense one that goes on", "Sparse upcycling, section 4",
            against("vision-dense-on", "vision-upcycled") + against("vision-scratch-half", "vision-upcycled")),
        Row("vision-pruning", "Images: pruning by the router's change and at random",
            "the router's change tells which experts of a V-MoE can go", "provable expert pruning, its experiments",
            curve([6, 4, 2], "vision-"), "Evaluated as pruned. `apus prune` counts use over text alone."),
    ]
