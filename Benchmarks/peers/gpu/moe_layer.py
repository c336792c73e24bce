"""A Mixture-of-Experts layer with torch's grouped products, eager and compiled: the peer of `apus bench moe-layer`.

Router, top-k, sort by expert, SwiGLU experts by grouped_mm, weighted sum by token; forward and backward in bf16.
Gradients of weights are left as None before each pass, as after zero_grad(): nothing is added to.

Rows can be moved in several ways, and which is fastest depends on the shape: all are tried, and the fastest counts.
"indexed" leaves adjoints to autograd, "added" sums results by index_add, "gathered" has adjoints written by hand that
gather, so that nothing is added atomically.

The form "sonic" is the same layer by SonicMoE's kernels (sonic.py).

Letters: T tokens, D width, F expert width, E experts, K choices, R = T K rows.
"""

import math
import statistics
import sys

import torch
import torch.nn.functional as F
from torch import nn

import clock

grouped_mm = getattr(F, "grouped_mm", None) or torch._grouped_mm


FORMULATIONS = ("indexed", "added", "gathered")


class Spread(torch.autograd.Function):
    """Each token's row, K times, sorted by expert; the adjoint gathers a token's K rows and adds them."""

    @staticmethod
    def forward(context, x, order, back, choices):
        context.save_for_backward(back)
        context.choices = choices
        return x.index_select(0, order // choices)

    @staticmethod
    def backward(context, drows):
        back, = context.saved_tensors
        dx = drows.index_select(0, back).view(-1, context.choices, drows.shape[-1]).sum(dim=1)
        return dx, None, None, None


class Reorder(torch.autograd.Function):
    """Rows in another order; the adjoint is the inverse one."""

    @staticmethod
    def forward(context, rows, order, inverse):
        context.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(context, dy):
        inverse, = context.saved_tensors
        return dy.index_select(0, inverse), None, None


class Layer(nn.Module):
    formulations = FORMULATIONS

    def __init__(self, width, expert_width, experts, choices):
        super().__init__()
        self.choices, self.expert_width = choices, expert_width
        gate = torch.randn(experts, width, device="cuda") * 1.28 / math.sqrt(width)
        self.gate = nn.Parameter(gate.bfloat16())
        self.first = nn.Parameter(weights(experts, 2 * expert_width, width))
        self.second = nn.Parameter(weights(experts, width, expert_width))
        self.register_buffer("ids", torch.arange(experts, device="cuda"), persistent=False)

    def forward(self, x, formulation):
        tokens, width = x.shape
        scores = F.linear(x, self.gate).float().softmax(dim=-1)
        factors, chosen = scores.topk(self.choices, dim=-1)
        factors = (factors / factors.sum(dim=-1, keepdim=True)).to(x.dtype)
        by_expert, order = chosen.flatten().sort(stable=True)
        ends = torch.searchsorted(by_expert, self.ids, right=True).to(torch.int32)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.numel(), device=order.device)
        if formulation == "gathered":
            rows = Spread.apply(x, order, back, self.choices)
        else:
            rows = x.index_select(0, order // self.choices)
        hidden = grouped_mm(rows, self.first.transpose(-2, -1), offs=ends)
        gate, up = hidden.split(self.expert_width, dim=-1)
        results = grouped_mm(F.silu(gate) * up, self.second.transpose(-2, -1), offs=ends)
        if formulation == "added":
            weighted = results * factors.flatten()[order][:, None]
            return torch.zeros_like(x).index_add(0, order // self.choices, weighted)
        if formulation == "gathered":
            results = Reorder.apply(results, back, order)
        else:
            results = results.index_select(0, back)
        return (results.view(tokens, self.choices, width) * factors[..., None]).sum(dim=1)


def weights(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.02


def bias(experts, routing):
    """What a token's last element of 1 adds to the experts' logits: none, Zipf's law, or one expert for certain."""
    if routing == "zipf":
        return -torch.log(torch.arange(1, experts + 1, device="cuda").float())
    result = torch.zeros(experts, device="cuda")
    if routing == "half":
        result[0] = 64
    return result


class Pass:
    """A layer in one formulation with its input; forward and backward are what is timed."""

    def __init__(self, layer, call, formulation, x):
        self.layer, self.call, self.formulation, self.x = layer, call, formulation, x
        self.dy = torch.randn_like(x)

    def clear(self):
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None

    def forward(self):
        self.clear()
        self.y = self.call(self.x, self.formulation)

    def backward(self):
        y, self.y = self.y, None
        y.backward(self.dy)

    def time(self, rounds):
        return clock.in_turn([[self.forward, self.backward]], rounds)[0]

    def extra_bytes(self):
        """What a pass takes at most besides weights and their gradients."""
        self.clear()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        self.forward()
        self.backward()
        torch.cuda.synchronize()
        gradients = sum(p.grad.numel() * p.grad.element_size() for p in self.layer.parameters())
        self.clear()
        return torch.cuda.max_memory_allocated() - held - gradients


layers, fastest = {}, {}


def tokens_like(tokens, width, routing):
    x = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
    x[:, -1] = 1
    if routing == "half":
        x[1::2, -1] = -1
    return x.requires_grad_()


def choose(layer, call, x):
    """The fastest formulation, and the seconds of each."""
    seconds, failure = {}, None
    for formulation in layer.formulations:
        try:
            passes = Pass(layer, call, formulation, x).time(5)
            seconds[formulation] = statistics.median(sum(p) for p in passes)
        except Exception as problem:
            print(f"{formulation}: {problem}", file=sys.stderr)
            failure = problem
    if not seconds:
        raise RuntimeError(f"no formulation of the layer runs, the last because of {failure}")
    return min(seconds, key=seconds.get), seconds


def layer_class(form):
    if form != "sonic":
        return Layer
    # Imported when asked for, because it is not always installed.
    import sonic
    return sonic.Layer


def measure(tokens, width, expert_width, experts, choices, form="compiled", routing="balanced", rounds=20):
    key = (width, expert_width, experts, choices, form)
    x = tokens_like(tokens, width, routing)
    if key not in layers:
        torch.manual_seed(1)
        layer = layer_class(form)(width, expert_width, experts, choices)
        layers[key] = layer, (torch.compile(layer, dynamic=False, fullgraph=True) if form == "compiled" else layer)
    layer, call = layers[key]
    layer.gate.data[:, -1] = bias(experts, routing)
    if (key, routing) not in fastest:
        fastest[key, routing] = choose(layer, call, x)
    formulation, tried = fastest[key, routing]
    bench = Pass(layer, call, formulation, x)
    passes = bench.time(rounds)
    seconds = statistics.median(sum(p) for p in passes)
    return {
        "forward_seconds": statistics.median(p[0] for p in passes),
        "backward_seconds": statistics.median(p[1] for p in passes), "seconds": seconds,
        "expert_tflops": 18 * tokens * choices * width * expert_width / seconds / 1e12,
        "extra_bytes": bench.extra_bytes(), "formulation": formulation, "seconds_by_formulation": tried,
    }


def forget():
    # Compiled forms of one function are counted together, and there is a most.
    torch._dynamo.reset()
    layers.clear()
    fastest.clear()
