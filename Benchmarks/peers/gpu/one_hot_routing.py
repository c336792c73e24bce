"""Routing by products with one-hot masks, as DeepSpeed's gate does it in PyTorch: the peer of `apus bench routing`.

Logits, top-k, each choice's place in its expert by a running sum, a mask of (T, E, C), the tokens multiplied with it to
the experts' rows, and the rows multiplied with its weights back to tokens. Forward only, bf16 tokens, gate in f32.

C is T K / E, the least that can hold all choices: more than this would be slower, and what finds no room is dropped.
Letters: T tokens, D width, E experts, K choices, C capacity.
"""

import math

import torch
import torch.nn.functional as F

import clock


def gate(x, weight, choices, capacity):
    """Combine weights (T, E, C), and the same as a mask."""
    scores = F.linear(x.float(), weight).softmax(dim=-1)
    chosen = torch.zeros_like(scores).scatter_(1, scores.topk(choices, dim=-1).indices, 1)
    place = chosen.cumsum(dim=0) - 1
    chosen = chosen * (place < capacity)
    kept = scores * chosen
    kept = kept / kept.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).eps)
    places = F.one_hot((place * chosen).long(), capacity).float()
    combine = torch.einsum("te,tec->tec", kept, places)
    return combine, combine.bool()


def there_and_back(x, combine, mask):
    rows = torch.einsum("tec,td->ecd", mask.to(x.dtype), x)
    return torch.einsum("tec,ecd->td", combine.to(x.dtype), rows)


def measure(tokens=4096, width=2048, experts=64, choices=2, rounds=30, form="eager"):
    torch.manual_seed(1)
    x = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(experts, width, device="cuda") * 1.28 / math.sqrt(width)
    capacity = -(-tokens * choices // experts)

    def all(x, weight):
        return there_and_back(x, *gate(x, weight, choices, capacity))

    call = torch.compile(all, dynamic=False) if form == "compiled" else all
    with torch.no_grad():
        masks = gate(x, weight, choices, capacity)
        route, both = clock.medians(
            [lambda: gate(x, weight, choices, capacity), lambda: call(x, weight)], rounds)
        carry = clock.medians([lambda: there_and_back(x, *masks)], rounds)[0]
    return {"route_seconds": route, "carry_seconds": carry, "all_seconds": both, "capacity": capacity}
