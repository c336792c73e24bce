"""Dense products, one at a time and batched: the peers of `apus bench gemm` and `apus bench blocksparse`."""

import torch

import clock


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def measure(m, n, k, rounds=20):
    """TFLOP/s of a linear layer's three products; the third is added to what is there."""
    x, w, dy, gradient = random(m, k), random(n, k), random(m, n), torch.zeros_like(random(n, k))
    y, dx = torch.empty_like(dy), torch.empty_like(x)
    seconds = clock.medians([
        lambda: torch.mm(x, w.t(), out=y), lambda: torch.mm(dy, w, out=dx),
        lambda: gradient.addmm_(dy.t(), x)], rounds)
    return {name: 2 * m * n * k / time / 1e12 for name, time in zip(("nt", "nn", "tn"), seconds)}


def measure_batched(rows, experts, width, expert_width, rounds=20):
    """Seconds of the six products of experts without a gate as torch.bmm, all experts with as many rows."""
    each = rows // experts
    x, h = random(experts, each, width), random(experts, each, expert_width)
    first, second = random(experts, expert_width, width), random(experts, width, expert_width)
    wide, inner, gradient = torch.empty_like(x), torch.empty_like(h), torch.zeros_like(first)
    turned = torch.zeros_like(second)
    seconds = clock.medians([
        lambda: torch.bmm(x, first.mT, out=inner), lambda: torch.bmm(h, second.mT, out=wide),
        lambda: torch.bmm(x, second, out=inner), lambda: turned.baddbmm_(x.mT, h),
        lambda: gradient.baddbmm_(h.mT, x), lambda: torch.bmm(h, first, out=wide)], rounds)
    operations = 2 * rows * width * expert_width
    return {"seconds": seconds, "tflops": [operations / time / 1e12 for time in seconds]}
