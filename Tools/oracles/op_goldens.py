"""Single operations as PyTorch and transformers compute them, at odd sizes, forward and backward in f32.

Writes Tests/Goldens/ops/<op>.safetensors. Names: inputs by their own name, `y` the output, `dy` the gradient given for
it, `grad.<input>` what backward returns.

Letters: T rows, D width, B batch, S sequence, H query heads, G key/value heads, V vocabulary.
"""

import torch
import torch.nn.functional as F
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRMSNorm, apply_rotary_pos_emb

from goldens import GOLDENS, deterministic, versions, write_tensors


class Inputs:
    """Random f32 tensors in a fixed order."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, *shape, scale=1.0, shift=0.0):
        return torch.randn(*shape, generator=self.random) * scale + shift


def differentiate(inputs, function, dy):
    """Inputs, output, the output's gradient, and the gradient of every floating input."""
    leaves = {n: (v.clone().requires_grad_() if v.is_floating_point() else v) for n, v in inputs.items()}
    y = function(**leaves)
    y.backward(dy)
    result = dict(inputs, y=y, dy=dy)
    return result | {f"grad.{n}": v.grad for n, v in leaves.items() if v.is_floating_point()}


def rms_norm(make):
    def function(x, weight):
        module = Qwen3MoeRMSNorm(x.shape[-1], eps=1e-6)
        del module.weight
        module.weight = weight
        return module(x)
    return {"eps": 1e-6}, differentiate(dict(x=make(7, 37), weight=make(37, scale=0.2, shift=1)), function, make(7, 37))


def layer_norm(make):
    def function(x, weight, bias):
        return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)
    inputs = dict(x=make(7, 37, scale=2, shift=0.5), weight=make(37, scale=0.2, shift=1), bias=make(37))
    return {"eps": 1e-5}, differentiate(inputs, function, make(7, 37))


def gelu(approximate):
    def make_golden(make):
        x = torch.cat([make(5, 33, scale=2), torch.linspace(-12, 12, 33)[None], torch.zeros(1, 33)])
        return {}, differentiate(dict(x=x), lambda x: F.gelu(x, approximate=approximate), make(7, 33))
    return make_golden


def swiglu(make):
    gate = torch.cat([make(6, 33, scale=2), torch.linspace(-40, 40, 33)[None]])
    return {}, differentiate(dict(gate=gate, up=make(7, 33)), lambda gate, up: F.silu(gate) * up, make(7, 33))


def softmax(make):
    x = torch.cat([make(5, 19, scale=3), make(1, 19, shift=1000), torch.full((1, 19), -3.0)])
    return {}, differentiate(dict(x=x), lambda x: x.softmax(dim=-1), make(7, 19))


def rope(make):
    """q (B, H, S, W) and k (B, G, S, W) at positions that do not start at 0, half-split pairing, theta 10000."""
    width, positions = 10, torch.tensor([[0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 20, 21, 40, 1000]])
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle = positions[..., None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)

    def function(q, k):
        return torch.cat(apply_rotary_pos_emb(q, k, angle.cos(), angle.sin()), dim=1)

    result = differentiate(dict(q=make(2, 3, 7, width), k=make(2, 1, 7, width)), function, make(2, 4, 7, width))
    return {"theta": 10000.0, "y": "rotated q, then rotated k, joined over heads"}, result | {"positions": positions}


def attention(queries, keys, causal):
    def make_golden(make):
        def function(q, k, v):
            mask = None
            if causal:
                mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        inputs = dict(q=make(2, 6, queries, 10), k=make(2, 2, keys, 10), v=make(2, 2, keys, 10))
        notes = {"scale": 10 ** -0.5, "causal": causal, "mask": "query i sees keys 0 ... i + keys - queries"}
        return notes, differentiate(inputs, function, make(2, 6, queries, 10))
    return make_golden


def cross_entropy(make):
    """Mean over the targets that are not -100; some logits are large."""
    logits = make(11, 53, scale=3)
    logits[4] *= 20
    targets = torch.randint(53, (11,), generator=make.random)
    targets[2] = targets[7] = -100

    def function(logits, targets):
        return F.cross_entropy(logits, targets, ignore_index=-100)
    return {"ignore_index": -100}, differentiate(dict(logits=logits, targets=targets), function, torch.tensor(1.0))


def adamw(make):
    """Five steps of two tensors, one decayed and one not; gradients span magnitudes, some are zero."""
    values = {"matrix": make(9, 7, scale=0.3), "norm": make(13, scale=0.2, shift=1)}
    parameters = {n: torch.nn.Parameter(v.clone()) for n, v in values.items()}
    optimizer = torch.optim.AdamW(
        [dict(params=[parameters["matrix"]], weight_decay=0.1), dict(params=[parameters["norm"]], weight_decay=0.0)],
        lr=3e-3, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    result = {f"{n}.0": v for n, v in values.items()}
    for step in range(1, 6):
        for name, parameter in parameters.items():
            gradient = make(*parameter.shape) * 10.0 ** make(*parameter.shape).mul(2).round()
            gradient.view(-1)[step] = 0
            parameter.grad = gradient
            result[f"{name}.grad.{step}"] = gradient
        optimizer.step()
        for name, parameter in parameters.items():
            state = optimizer.state[parameter]
            result[f"{name}.{step}"] = parameter.detach().clone()
            result[f"{name}.first.{step}"] = state["exp_avg"].clone()
            result[f"{name}.second.{step}"] = state["exp_avg_sq"].clone()
    return dict(lr=3e-3, betas="0.9 0.95", eps=1e-8, weight_decay="0.1 matrix, 0 norm"), result


def clip(make):
    """Global-norm clipping of two gradients at 1.0 (clipped) and at 1000 (left alone)."""
    gradients = [make(5, 9), make(17)]
    result = {f"grad.{i}": g for i, g in enumerate(gradients)}
    for label, limit in [("clipped", 1.0), ("free", 1000.0)]:
        parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.clone()
        result[f"{label}.norm"] = torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=False)
        result |= {f"{label}.{i}": p.grad for i, p in enumerate(parameters)}
    return {"limits": "1 and 1000", "scale": "limit / (norm + 1e-6), at most 1"}, result


OPS = {
    "rms_norm": rms_norm, "layer_norm": layer_norm, "gelu_erf": gelu("none"), "gelu_tanh": gelu("tanh"),
    "swiglu": swiglu, "softmax": softmax, "rope": rope, "attention_causal": attention(9, 9, True),
    "attention_suffix": attention(4, 9, True), "attention_cross": attention(5, 8, False),
    "cross_entropy": cross_entropy, "adamw": adamw, "clip": clip,
}


def main():
    deterministic()
    for seed, (name, op) in enumerate(OPS.items()):
        notes, tensors = op(Inputs(seed))
        write_tensors(GOLDENS / "ops" / f"{name}.safetensors", tensors, notes | versions("torch", "transformers"))


if __name__ == "__main__":
    main()
