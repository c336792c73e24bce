"""DeepSpeed's own top-1, top-2 and top-k gating, run on the CPU on small logits.

Writes Tests/Goldens/gating/deepspeed.json. Every result comes from deepspeed.moe.sharded_moe; this script only picks
the inputs, records the random draw, and turns the dense combine weights (T, E, C) into a list of kept choices.

Letters: T tokens, E experts, K choices, C capacity.
"""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from deepspeed.moe import sharded_moe

from goldens import GOLDENS, decimals, deterministic, tighten, versions, write_cases


def make_logits(tokens, experts, seed, skew=0.0):
    """Logits with four decimals; `skew` is added to expert 0, so that it overflows."""
    logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed)) * 1.5
    logits[:, 0] += skew
    return torch.tensor(decimals(logits, 4))


LOGITS = {
    "7x4": make_logits(7, 4, 1),
    "13x5": make_logits(13, 5, 2, skew=1.0),
    "16x8": make_logits(16, 8, 3),
    "9x3_one_expert": make_logits(9, 3, 4, skew=12.0),
    "1x4": make_logits(1, 4, 5),
}


def kept_choices(combine):
    """[token, expert, slot, weight] of every kept choice, by token then expert."""
    return [[t, e, c, tighten(combine[t, e, c].item())] for t, e, c in combine.nonzero().tolist()]


def check_against_routes(kept, routes):
    """The sparse form of the same call must name the same choices."""
    _, _, _, experts, slots, weights, _ = routes
    listed = {(t, int(experts[k, t]), int(slots[k, t])): float(weights[k, t])
              for k in range(experts.shape[0]) for t in range(experts.shape[1]) if experts[k, t] >= 0}
    assert {(t, e, c) for t, e, c, _ in kept} == listed.keys()
    assert all(abs(listed[(t, e, c)] - w) < 1e-6 for t, e, c, w in kept)


def by_position(kept, logits, choices, capacity):
    """Whether every expert kept the earliest of the tokens that chose it."""
    chosen = torch.zeros_like(logits, dtype=torch.long).scatter_(1, logits.topk(choices, dim=1).indices, 1)
    earliest = chosen * (chosen.cumsum(dim=0) <= capacity)
    got = torch.zeros_like(chosen)
    for t, e, _, _ in kept:
        got[t, e] = 1
    return bool(torch.equal(earliest, got))


def run(function, name, draw=None, **settings):
    """One case: the dense call, checked against the sparse one."""
    logits = LOGITS[name]
    if draw is not None:
        sharded_moe.exp_selection_uniform_map[logits.device] = lambda shape: draw
    gate = getattr(sharded_moe, function)
    loss, combine, mask, counts = gate(logits.clone(), **settings)
    routes = gate(logits.clone(), **settings, sparse_routes=True)
    kept = kept_choices(combine)
    check_against_routes(kept, routes)
    capacity = int(routes[1])
    assert combine.shape[2] == capacity and int(mask.sum()) == len(kept)
    choices = {"top1gating": 1, "top2gating": 2}.get(function, settings.get("k"))
    case = dict(function=function, logits=name, k=choices, settings=settings, l_aux=tighten(loss.item()),
                capacity=capacity, exp_counts=counts.tolist(),
                kept_by_position=by_position(kept, logits, choices, capacity), kept=kept)
    if draw is not None:
        case["draw"] = decimals(draw)
    return case


def cases():
    for name, logits in LOGITS.items():
        tokens = logits.shape[0]
        for factor, least in [(1.0, 0), (0.5, 1), (1.25, 4), (8.0, 0)]:
            if least > tokens:
                continue
            common = dict(capacity_factor=factor, min_capacity=least)
            yield run("top1gating", name, use_rts=False, **common)
            draw = torch.rand(logits.shape, generator=torch.Generator().manual_seed(100 + tokens))
            yield run("top1gating", name, draw=torch.tensor(decimals(draw, 4)), use_rts=True, **common)
            yield run("top2gating", name, top2_2nd_expert_sampling=False, **common)
            for k in {2, 3, logits.shape[1]} if factor != 1.25 else {2}:
                for policy in ["position", "probs"]:
                    yield run("topkgating", name, k=k, drop_policy=policy, **common)
            if factor != 1.25:
                yield run("topkgating", name, k=1, drop_policy="position", **common)
        free = dict(capacity_factor=1.0, min_capacity=0, drop_tokens=False)
        yield run("top1gating", name, use_rts=False, **free)
        yield run("top2gating", name, top2_2nd_expert_sampling=False, **free)
        yield run("topkgating", name, k=2, **free)


def main():
    deterministic()
    head = dict(versions=versions("deepspeed", "torch"),
                kept="[token, expert, slot, weight]",
                logits={name: decimals(value) for name, value in LOGITS.items()})
    write_cases(GOLDENS / "gating" / "deepspeed.json", head, list(cases()))


if __name__ == "__main__":
    main()
