"""100 AdamW steps of two tiny models in f32: the loss, its parts and the gradient norm at every step.

Reads the weights of tiny_models.py and writes Tests/Goldens/loss_curve/<model>.safetensors. Two schedules from
the same start: `constant` (1e-3) and `cosine` (10 steps of linear warm-up to 1e-3, then half a cosine to 1e-4).
With --sensitivity nothing is written: the run is repeated with starting weights moved by one part in 10^7, and the
greatest relative distance between the two curves is printed. It says how far rounding alone can push a correct program.
"""

import argparse
import math

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from goldens import GOLDENS, deterministic, hub_tensors, versions, write_tensors

STEPS, BATCH, SEQUENCE, VOCABULARY = 100, 4, 24, 96
PEAK, FLOOR, WARMUP = 1e-3, 1e-4, 10
MODELS = ["mixtral", "qwen3_moe"]


def batches():
    """(steps, B, S) ids: each sequence repeats one of 8 fixed patterns of 3 to 6 ids; one id in ten is noise."""
    random = torch.Generator().manual_seed(7)
    patterns = [torch.randint(3, VOCABULARY, (3 + i % 4,), generator=random) for i in range(8)]
    rows = []
    for _ in range(STEPS * BATCH):
        pattern = patterns[int(torch.randint(len(patterns), (1,), generator=random))]
        row = pattern.repeat(SEQUENCE // len(pattern) + 1)[:SEQUENCE]
        noise = torch.randint(3, VOCABULARY, (SEQUENCE,), generator=random)
        rows.append(torch.where(torch.rand(SEQUENCE, generator=random) < 0.1, noise, row))
    return torch.stack(rows).view(STEPS, BATCH, SEQUENCE)


def rate(schedule, step):
    """Learning rate of the step that is number `step`, counted from 1."""
    if schedule == "constant":
        return PEAK
    if step <= WARMUP:
        return PEAK * step / WARMUP
    return FLOOR + 0.5 * (PEAK - FLOOR) * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def curve(name, schedule, data, nudge=0.0):
    """Per-step tensors of one run, and the trained weights."""
    model = AutoModelForCausalLM.from_pretrained(
        GOLDENS / name, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32).eval()
    if nudge:
        noise = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + nudge * torch.randn(parameter.shape, generator=noise))
    parameters = dict(model.named_parameters())
    groups = [dict(params=[p for p in parameters.values() if p.dim() > 1], weight_decay=0.1),
              dict(params=[p for p in parameters.values() if p.dim() == 1], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    record = {key: [] for key in ("loss", "lm_loss", "balance_loss", "grad_norm", "lr")}
    for step, ids in enumerate(data, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate(schedule, step)
        out = model(input_ids=ids, labels=ids, output_router_logits=True, use_cache=False)
        out.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        coefficient = model.config.router_aux_loss_coef
        record["loss"].append(out.loss.item())
        record["lm_loss"].append((out.loss - coefficient * out.aux_loss).item())
        record["balance_loss"].append(out.aux_loss.item())
        record["grad_norm"].append(norm.item())
        record["lr"].append(optimizer.param_groups[0]["lr"])
    weights = hub_tensors(model.config.model_type, {n: p.detach() for n, p in parameters.items()})
    return {k: torch.tensor(v) for k, v in record.items()}, weights


def report_sensitivity(data):
    for name in MODELS:
        for schedule in ["constant", "cosine"]:
            base, _ = curve(name, schedule, data)
            moved, _ = curve(name, schedule, data, nudge=1e-7)
            for key in ["loss", "grad_norm"]:
                distance = ((base[key] - moved[key]).abs() / base[key].abs()).max().item()
                print(f"{name} {schedule} {key}: greatest relative distance {distance:.2e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sensitivity", action="store_true")
    args = parser.parse_args()
    deterministic()
    logging.disable_progress_bar()
    data = batches()
    if args.sensitivity:
        report_sensitivity(data)
        return
    for name in MODELS:
        tensors = {"input_ids": data}
        for schedule in ["constant", "cosine"]:
            record, weights = curve(name, schedule, data)
            tensors |= {f"{schedule}.{k}": v for k, v in record.items()}
            tensors |= {f"{schedule}.norm.{n}": w.double().norm().float() for n, w in weights.items()}
            print(f"{name} {schedule}: loss {record['loss'][0]:.4f} -> {record['loss'][-1]:.4f}")
        notes = dict(betas="0.9 0.95", eps=1e-8, weight_decay=0.1, clip=1.0, router_aux_loss_coef=0.05)
        notes |= versions("torch", "transformers")
        write_tensors(GOLDENS / "loss_curve" / f"{name}.safetensors", tensors, notes)


if __name__ == "__main__":
    main()
