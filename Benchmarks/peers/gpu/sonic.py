"""The Mixture-of-Experts layer of moe_layer.py by SonicMoE's fused kernels: the form "sonic" of the peer `moe_layer`.

Only the package's public layer function is called: top-k and softmax of the router's logits, the lists of tokens by
expert, and grouped products with gathers, activation and their adjoints inside. Weights have the library's default
layout, an expert's gate and up rows in turn. The first pass of a shape compiles kernels and tunes them.

Usage, to check it against plain torch and time one shape:
    python sonic.py --shape 32768,2048,1024,64,8
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from sonicmoe import moe_TC_softmax_topk_layer

import moe_layer

TOLERANCE = 2e-2


class Layer(moe_layer.Layer):
    """The same parameters; a softmax over the chosen logits is a renormalised choice of the whole softmax."""

    formulations = ("interleaved",)

    def forward(self, x, formulation):
        stream = torch.cuda.current_stream().cuda_stream
        y, _, _ = moe_TC_softmax_topk_layer(
            x, self.gate, self.first.permute(1, 2, 0), None, self.second.permute(1, 2, 0), None, self.choices, stream)
        return y


def plain(layer, x):
    """The layer's definition with one product after another in f32, the logits and choices in bf16 as the layer's."""
    logits = F.linear(x, layer.gate)
    # The earlier of two equal logits is chosen, as the layer does.
    chosen = logits.detach().float().sort(dim=-1, descending=True, stable=True).indices[:, :layer.choices]
    factors = logits.gather(1, chosen).float().softmax(dim=-1)
    x = x.float()
    y = torch.zeros_like(x)
    for expert in range(layer.gate.shape[0]):
        tokens, choice = (chosen == expert).nonzero(as_tuple=True)
        hidden = x[tokens] @ layer.first[expert].float().T
        results = (F.silu(hidden[:, 0::2]) * hidden[:, 1::2]) @ layer.second[expert].float().T
        y = y.index_add(0, tokens, results * factors[tokens, choice][:, None])
    return y


def errors(layer, x):
    """How far the result and each gradient are from the definition's: the difference's norm over the norm."""
    dy = torch.randn_like(x)

    def run(compute):
        layer.zero_grad(set_to_none=True)
        x.grad = None
        y = compute()
        y.backward(dy.to(y.dtype))
        return {"y": y.detach().float(), "x": x.grad.float()} | {
            name: parameter.grad.float() for name, parameter in layer.named_parameters()}

    ours, wanted = run(lambda: layer(x, "interleaved")), run(lambda: plain(layer, x))
    return {name: ((ours[name] - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-20)).item()
            for name in wanted}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="32768,2048,1024,64,8", help="T,D,F,E,K")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    tokens, width, expert_width, experts, choices = map(int, args.shape.split(","))
    torch.manual_seed(1)
    layer = Layer(width, expert_width, experts, choices)
    x = moe_layer.tokens_like(tokens, width, "balanced")
    begin = time.perf_counter()
    moe_layer.Pass(layer, layer, "interleaved", x).time(1)
    first = time.perf_counter() - begin
    found = errors(layer, x)
    del layer, x
    torch.cuda.empty_cache()
    result = moe_layer.measure(tokens, width, expert_width, experts, choices, form="sonic", rounds=args.rounds)
    print(json.dumps({"shape": args.shape, "first_seconds": first, "errors": found} | result))
    # One choice has a factor of one whatever the logits are: the router's gradient is zero, and its error means nothing.
    wrong = [name for name, error in found.items()
             if not error <= TOLERANCE and not (choices == 1 and name == "gate")]
    if wrong:
        sys.exit(f"off by more than {TOLERANCE}: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
