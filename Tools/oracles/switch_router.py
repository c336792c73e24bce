"""Router losses: the Switch router's published constants, and transformers' own functions on further inputs.

Writes Tests/Goldens/router/switch_router.json. The inputs of the three `published` cases are the numbers of
transformers' test suite for the Switch Transformer, whose expected values (0.8741045, 13.786719, 1.000308, 0.4789799)
come from the original JAX implementation; this script checks that the installed functions still give them.

Letters: G groups (sequences), S tokens of a group, T = G*S, D width, E experts, K choices.
"""

import torch
from transformers import SwitchTransformersConfig
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func as pooled_balance_loss
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersTop1Router,
    load_balancing_loss_func,
    router_z_loss_func,
)

from goldens import GOLDENS, decimals, deterministic, tighten, versions, write_cases

PUBLISHED_SCORES = [[0.35490513, 0.60419905], [0.4275843, 0.23061597], [0.32985854, 0.43953657],
                    [0.25099766, 0.27730572], [0.7678207, 0.71474564]]
PUBLISHED_CHOICES = [[0], [1], [1], [0], [0]]
PUBLISHED_LOGITS = [
    [[-4.2124424, 3.891939, -3.6481273, 1.8849981], [0.32625437, 2.918651, 0.84758997, -4.556842],
     [-3.32062, 4.6977115, -0.15439987, 0.44086337], [3.4467149, 4.3436565, -4.7224274, -4.264637],
     [-2.224406, -2.5318158, -1.3832569, 1.1891162], [-2.320062, -0.44705987, 4.289819, -0.00662684]],
    [[0.99470854, -0.6992364, 0.25503993, 4.2952085], [3.5937333, -3.2408535, -4.298278, 4.426601],
     [0.7669008, 2.6588762, 2.4505413, 4.6051874], [0.23330331, -3.0845237, 0.6262374, -2.9865491],
     [0.7595146, -2.1099675, -4.155346, -2.8326452], [2.3771453, 1.004138, -3.1781673, 0.7581556]],
]
PUBLISHED_TOKENS = [
    [[0.6433916, 0.18188512, 0.02240455, 0.563781], [0.5526401, 0.0958724, 0.34253013, 0.03644359],
     [0.08744538, 0.7909105, 0.35205448, 0.53364205]],
    [[0.02900076, 0.4168595, 0.5802449, 0.91486526], [0.27414513, 0.14991808, 0.9383501, 0.5209162],
     [0.51207185, 0.90618336, 0.7309413, 0.95533276]],
]
PUBLISHED_WEIGHT = [[0.02008116, -0.00811031, -0.03542127, 0.02335377],
                    [0.00620062, -0.00031623, 0.02703803, -0.02971946]]


def random(*shape, seed, scale=1.0):
    """Normal numbers with four decimals."""
    return torch.tensor(decimals(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale, 4))


def router_case(name, tokens, weight, capacity):
    """The whole top-1 router: logits, choices, what the capacity (per group, by position) drops, both losses."""
    experts, width = weight.shape
    router = SwitchTransformersTop1Router(SwitchTransformersConfig(
        num_experts=experts, hidden_size=width, expert_capacity=capacity, router_jitter_noise=0.0)).eval()
    router.classifier.weight.data = weight
    with torch.no_grad():
        dispatch, weights, logits = router(tokens)
        scores = torch.softmax(logits, dim=-1)
        chosen = scores.argmax(dim=-1)
        return dict(name=name, kind="switch_router", tokens=decimals(tokens), weight=decimals(weight),
                    capacity=capacity, logits=decimals(logits), chosen=chosen.tolist(),
                    kept=(dispatch.sum(dim=-1) > 0).tolist(), weights=decimals(weights.squeeze(-1)),
                    z_loss=tighten(router_z_loss_func(logits).item()),
                    balance_loss=tighten(load_balancing_loss_func(scores, chosen).item()),
                    balance_loss_kept=tighten(load_balancing_loss_func(scores, dispatch.argmax(dim=-1)).item()))


def switch_cases():
    scores, chosen = torch.tensor(PUBLISHED_SCORES), torch.tensor(PUBLISHED_CHOICES, dtype=torch.int32)
    loss = load_balancing_loss_func(scores, chosen).item()
    assert abs(loss - 0.8741045) < 1e-5
    yield dict(name="published balance loss", kind="switch_balance", scores=decimals(scores),
               chosen=chosen.squeeze(-1).tolist(), published=0.8741045, balance_loss=tighten(loss))

    logits = torch.tensor(PUBLISHED_LOGITS)
    loss = router_z_loss_func(logits).item()
    assert abs(loss - 13.786719) < 1e-5
    yield dict(name="published z loss", kind="switch_z", logits=decimals(logits), published=13.786719,
               z_loss=tighten(loss))

    case = router_case("published router", torch.tensor(PUBLISHED_TOKENS), torch.tensor(PUBLISHED_WEIGHT), 4)
    assert abs(case["balance_loss"] - 1.000308) < 1e-5 and abs(case["z_loss"] - 0.4789799) < 1e-5
    yield case | dict(published_balance_loss=1.000308, published_z_loss=0.4789799)

    yield router_case("overflow", random(2, 11, 6, seed=1), random(4, 6, seed=2, scale=0.5), 2)
    yield router_case("no overflow", random(3, 7, 5, seed=3), random(3, 5, seed=4, scale=0.5), 7)


def pooled_case(name, logits, k, mask=None):
    """Mixtral's balance loss over a tuple of layers' logits (T, E), with its gradient in the logits."""
    layers = [layer.clone().requires_grad_() for layer in logits]
    experts = layers[0].shape[1]
    loss = pooled_balance_loss(tuple(layers), experts, k, mask)
    loss.backward()
    return dict(name=name, kind="pooled_balance", k=k, layers=[decimals(layer) for layer in logits],
                mask=None if mask is None else mask.tolist(), balance_loss=tighten(loss.item()),
                gradient=[decimals(layer.grad) for layer in layers])


def pooled_cases():
    rotated = torch.stack([torch.arange(4.0).roll(shift) for shift in range(4)])
    yield pooled_case("balanced over 4 experts, top-1: 1", [rotated], 1)
    yield pooled_case("balanced over 4 experts, top-2: 2", [rotated], 2)
    yield pooled_case("every expert chosen: K", [random(5, 3, seed=5)], 3)
    crowd = torch.tensor([[9.0, 5.0, -4.0, -8.0]]).repeat(6, 1)
    yield pooled_case("all tokens on two experts, top-2", [crowd], 2)
    yield pooled_case("one layer", [random(10, 5, seed=6)], 2)
    layers = [random(12, 6, seed=7), random(12, 6, seed=8, scale=2.0), random(12, 6, seed=9)]
    yield pooled_case("three layers", layers, 2)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    yield pooled_case("three layers, 3 sequences of 4 padded to lengths 4, 2 and 1", layers, 2, mask)
    yield pooled_case("same, top-3", layers, 3, mask)


def main():
    deterministic()
    head = dict(versions=versions("transformers", "torch"))
    write_cases(GOLDENS / "router" / "switch_router.json", head, [*switch_cases(), *pooled_cases()])


if __name__ == "__main__":
    main()
