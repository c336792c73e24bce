"""What every oracle script shares: where goldens go, deterministic PyTorch, Hub names, and the file formats.

Letters: B batch, S sequence, T = B*S tokens, D model width, F expert width, E experts, K choices, V vocabulary.
"""

import importlib.metadata
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
from safetensors.torch import save_file

GOLDENS = Path(__file__).resolve().parents[2] / "Tests" / "Goldens"


def deterministic():
    """One thread and deterministic kernels, so that a golden is the same on every run on one kind of CPU."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float32)


def versions(*packages):
    return {name: importlib.metadata.version(name) for name in packages}


def write_tensors(path, tensors, notes=None):
    """A safetensors file; scalars become shape (1), int64 becomes int32, names are sorted.

    The notes are one JSON object under one metadata key: several keys would be written in a random order.
    """
    plain = {}
    for name in sorted(tensors):
        value = tensors[name].detach().clone()
        if value.dtype == torch.int64:
            value = value.to(torch.int32)
        plain[name] = (value.reshape(1) if value.dim() == 0 else value).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"golden": json.dumps(notes)} if notes else {"format": "pt"}
    save_file(plain, path, metadata=metadata)
    path.chmod(0o644)
    print(f"{path.relative_to(GOLDENS)}: {path.stat().st_size:,} bytes, {len(plain)} tensors")


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
    print(f"{path.relative_to(GOLDENS)}: {path.stat().st_size:,} bytes")


EXPERT_NAMES = {
    "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
    "olmoe": ("mlp", "gate_proj", "up_proj", "down_proj"),
    "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
    "deepseek_v2": ("mlp", "gate_proj", "up_proj", "down_proj"),
    "deepseek_v3": ("mlp", "gate_proj", "up_proj", "down_proj"),
}


def hub_tensors(model_type, tensors):
    """Per-expert Hub names for tensors (weights or gradients) under the fused names transformers v5 has in memory.

    `mlp.experts.gate_up_proj` (E, 2F, D) holds gate over up; `mlp.experts.down_proj` is (E, D, F).
    """
    block, gate_name, up_name, down_name = EXPERT_NAMES[model_type]
    result = {}
    for name, value in tensors.items():
        if name.endswith(".mlp.experts.gate_up_proj"):
            prefix = name.replace(".mlp.experts.gate_up_proj", f".{block}.experts")
            for expert, rows in enumerate(value):
                gate, up = rows.chunk(2, dim=0)
                result[f"{prefix}.{expert}.{gate_name}.weight"] = gate
                result[f"{prefix}.{expert}.{up_name}.weight"] = up
        elif name.endswith(".mlp.experts.down_proj"):
            prefix = name.replace(".mlp.experts.down_proj", f".{block}.experts")
            for expert, rows in enumerate(value):
                result[f"{prefix}.{expert}.{down_name}.weight"] = rows
        else:
            result[name.replace(".mlp.gate.weight", f".{block}.gate.weight")] = value
    return result


def decimals(tensor, digits=None):
    """Nested lists of numbers that read back as the same f32; rounded to `digits` decimals if asked."""
    values = tensor.detach().to(torch.float64)
    if digits is not None:
        return round_nested(values.tolist(), digits)
    return tighten(tensor.detach().tolist())


def round_nested(value, digits):
    return [round_nested(v, digits) for v in value] if isinstance(value, list) else round(value, digits)


def tighten(value):
    """Each float as the shortest decimal that reads back as the same f32."""
    if isinstance(value, list):
        return [tighten(v) for v in value]
    return float(str(numpy.float32(value))) if isinstance(value, float) else value


def write_cases(path, head, cases):
    """JSON with one case a line, so that a changed case shows as one changed line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    start = json.dumps(head)[:-1]
    path.write_text(f'{start},\n"cases": [\n{lines}\n]}}\n')
    json.loads(path.read_text())
    print(f"{path.relative_to(GOLDENS)}: {path.stat().st_size:,} bytes, {len(cases)} cases")
