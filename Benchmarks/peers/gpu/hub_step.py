"""A whole training step in transformers: the peer of `apus bench train --preset olmoe-8-layers --precision bf16-pure`.

Experts by grouped_mm, attention by SDPA, weights, gradients and moments in bf16, AdamW fused, no clipping. Prints one
JSON object. Blocks of steps are timed whole, so that the host may run ahead within one.

Usage:
    python hub_step.py --compile --batch 4 --sequence 2048
"""

import argparse
import json
import statistics
import time

import torch

import hub_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps of a block")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()

    model = hub_model.build(layers=args.layers)
    model.config.use_cache = False
    model.train()
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    vocabulary = model.config.vocab_size
    batches = torch.randint(vocabulary, (16, args.batch, args.sequence), device="cuda")
    call = torch.compile(model, dynamic=False) if args.compile else model

    def step(index):
        batch = batches[index % len(batches)]
        loss = call(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    begin = time.perf_counter()
    for index in range(3):
        loss = step(index)
    torch.cuda.synchronize()
    prepared = time.perf_counter() - begin
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for block in range(args.blocks):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for index in range(args.steps):
            loss = step(3 + block * args.steps + index)
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begin) / args.steps)
    print(json.dumps({
        "program": "transformers", "compiled": args.compile, "parameters": parameters,
        "tokens_per_step": args.batch * args.sequence, "median_seconds": statistics.median(seconds),
        "step_seconds": seconds, "tokens_per_second": args.batch * args.sequence / statistics.median(seconds),
        "first_steps_seconds": prepared, "loss": loss.item(), "peak_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
    }))


if __name__ == "__main__":
    main()
