"""Causal attention by PyTorch's fused backends, flash and cuDNN: the peer of `apus bench attention`.

Operations are counted as `apus bench attention` counts them: 4 B H S^2 W / 2 forward, 2.5 times as many backward.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import clock

backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def measure(batch, heads, sequence, head_width, rounds=20):
    shape = (batch, heads, sequence, head_width)
    torch.manual_seed(1)
    q, k, v = (torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    dout = torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
    operations = 2 * batch * heads * sequence**2 * head_width
    result = {}
    for name, backend in backends.items():
        def forward():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        def both():
            torch.autograd.grad(forward(), (q, k, v), dout)

        alone, total = clock.medians([forward, both], rounds)
        result[name] = {"forward_seconds": alone, "seconds": total, "forward_tflops": operations / alone / 1e12,
                        "tflops": 3.5 * operations / total / 1e12}
    return result
