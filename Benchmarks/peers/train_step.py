"""The PyTorch peer of `apus bench train`: one training step of a small Mixture-of-Experts decoder on a CPU.

4 layers, D 256, 4 heads of 64, E 8 experts of SwiGLU width F 512, top-2 (softmax over all, renormalised), V 4096,
untied output, RMSNorm, RoPE: 15.7 M parameters. Batch 8 x 256 tokens, mean cross-entropy, AdamW over all parameters.
Experts run as a loop over experts, tokens gathered by index and added back by index, as Hugging Face's Mixtral does.

Letters: B batch, S sequence, T = B*S tokens, D width, H heads, F expert width, E experts, K choices, V vocabulary.

Usage:
    python train_step.py --threads 2 --dtype f32 --steps 10 --json
    python train_step.py --threads 2 --dtype f32 --interactive

With --interactive the program builds the model, warms up, prints a line that starts with "ready", then runs a block
of steps for every line read from standard input and prints the block's times as one JSON line. An empty line runs
--steps steps, a number runs that many, end of file or "quit" ends. A driver can so alternate this program with another
one on the same cores, both warm, neither running while the other is timed.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH, SEQUENCE, VOCABULARY = 8, 256, 4096
WIDTH, LAYERS, HEADS = 256, 4, 4
EXPERTS, CHOICES, EXPERT_WIDTH = 8, 2, 512


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return F.rms_norm(x, (WIDTH,), self.weight, 1e-5)


def rotary_tables(base=10000.0):
    """cos and sin, each (S, head width), for the half-split pairing."""
    width = WIDTH // HEADS
    frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle = torch.outer(torch.arange(SEQUENCE, dtype=torch.float32), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x, cos, sin):
        b, s, _ = x.shape
        q, k, v = (p(x).view(b, s, HEADS, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, s, WIDTH))


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERT_WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, EXPERT_WIDTH, bias=False)
        self.down = nn.Linear(EXPERT_WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class MoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, WIDTH)
        logits = self.router(x)
        scores = F.softmax(logits.float(), dim=-1)
        weights, chosen = scores.topk(CHOICES, dim=-1)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(x.dtype)
        with torch.no_grad():
            mask = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            choice, token = torch.where(mask[e])
            if token.numel() == 0:
                continue
            y = expert(x[token]) * weights[token, choice, None]
            out.index_add_(0, token, y.to(out.dtype))
        return out.view(shape), logits


def balance_loss(router_logits):
    """Mixtral's auxiliary loss: all layers pooled, E * sum over experts of (choices per token) * (mean score)."""
    scores = F.softmax(torch.cat(router_logits).float(), dim=-1)
    chosen = scores.topk(CHOICES, dim=-1).indices
    frequency = F.one_hot(chosen, EXPERTS).float().mean(dim=0).sum(dim=0)
    return EXPERTS * (frequency * scores.mean(dim=0)).sum()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(), Attention()
        self.moe_norm, self.moe = RMSNorm(), MoE()

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        y, logits = self.moe(self.moe_norm(x))
        return x + y, logits


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = RMSNorm()
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        cos, sin = rotary_tables()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids):
        x = self.embedding(ids)
        router_logits = []
        for block in self.blocks:
            x, logits = block(x, self.cos, self.sin)
            router_logits.append(logits)
        return self.head(self.norm(x)), router_logits


class Peer:
    """The model, its optimizer and its data; `step` is what is timed."""

    def __init__(self, args):
        torch.manual_seed(args.seed)
        self.args = args
        self.model = Decoder()
        self.parameters = sum(p.numel() for p in self.model.parameters())
        choice = {"fused": {"fused": True}, "foreach": {"foreach": True}, "single": {"foreach": False}}[args.adamw]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, **choice)
        self.batches = torch.randint(VOCABULARY, (16, BATCH, SEQUENCE + 1))
        self.count = 0

    def step(self):
        """One step: forward, backward, update. Returns (seconds, loss)."""
        batch = self.batches[self.count % len(self.batches)]
        self.count += 1
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.dtype == "bf16"):
            logits, router_logits = self.model(batch[:, :-1])
        loss = F.cross_entropy(logits.float().view(-1, VOCABULARY), batch[:, 1:].reshape(-1))
        if self.args.balance:
            loss = loss + self.args.balance * balance_loss(router_logits)
        loss.backward()
        if self.args.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.args.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        return time.perf_counter() - start, value

    def block(self, steps):
        """Times and the last loss of `steps` steps, as a dictionary ready for JSON."""
        results = [self.step() for _ in range(steps)]
        seconds = [s for s, _ in results]
        median = statistics.median(seconds)
        loss = results[-1][1]
        return {
            "program": "pytorch",
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "dtype": self.args.dtype,
            "parameters": self.parameters,
            "tokens_per_step": BATCH * SEQUENCE,
            "median_seconds": round(median, 6),
            "tokens_per_second": round(BATCH * SEQUENCE / median, 1),
            "step_seconds": [round(s, 6) for s in seconds],
            "loss": loss if math.isfinite(loss) else str(loss),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def show(result, as_json):
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for index, seconds in enumerate(result["step_seconds"]):
        print(f"step {index + 1:3d}  {seconds:.4f} s")
    print(f"{result['parameters']:,} parameters, {result['dtype']}, {result['threads']} threads: "
          f"median {result['median_seconds']:.4f} s, {result['tokens_per_second']:.0f} tokens/s, "
          f"loss {result['loss']:.4f}, peak RSS {result['peak_rss_bytes'] / 2**20:.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="bf16 is autocast, f32 weights")
    parser.add_argument("--steps", type=int, default=10, help="steps timed (of a block, with --interactive)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the first timed one")
    parser.add_argument("--adamw", choices=["fused", "foreach", "single"], default="fused")
    parser.add_argument("--balance", type=float, default=0.0, help="coefficient of the pooled balance loss")
    parser.add_argument("--clip", type=float, default=0.0, help="global-norm clipping; 0 is none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interactive", action="store_true", help="one block of steps per line of standard input")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    peer = Peer(args)
    for _ in range(args.warmup):
        peer.step()
    if not args.interactive:
        show(peer.block(args.steps), args.json)
        return
    print(f"ready {peer.parameters} parameters", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "quit":
            break
        show(peer.block(int(word) if word else args.steps), True)


if __name__ == "__main__":
    main()
