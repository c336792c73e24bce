"""Random tiny Mixtral, OLMoE and Qwen3-MoE models with their logits, losses, routing, gradients and greedy text.

Writes Tests/Goldens/<model>/: a Hugging Face folder and golden.safetensors. README.md says what each tensor is.
Inputs are the first of a row of seeds for which no routing choice and no greedy token is near a tie: see `margin`.
"""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    MixtralConfig,
    OlmoeConfig,
    Qwen3MoeConfig,
)

from goldens import GOLDENS, deterministic, hub_tensors, versions, write_json, write_tensors

VOCABULARY = 96
COMMON = dict(vocab_size=VOCABULARY, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
              tie_word_embeddings=False, output_router_logits=False, router_aux_loss_coef=0.05)
MODELS = {
    "mixtral": MixtralConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=4, num_experts_per_tok=2, rms_norm_eps=1e-5, sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **COMMON),
    "olmoe": OlmoeConfig(
        hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        num_experts=8, num_experts_per_tok=3, norm_topk_prob=False, clip_qkv=None, rms_norm_eps=1e-5, pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, **COMMON),
    "qwen3_moe": Qwen3MoeConfig(
        hidden_size=48, intermediate_size=56, moe_intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_experts=6, num_experts_per_tok=2, norm_topk_prob=True,
        mlp_only_layers=[1], decoder_sparse_step=1, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **COMMON),
}
CLIP_QKV = 1.25
CLIPS = {"mixtral": [None], "olmoe": [None, CLIP_QKV], "qwen3_moe": [None]}
LEAST_ROUTER_GAP = 5e-4  # between the K-th and the next softmax score; f32 differences are near 1e-6
LEAST_LOGIT_GAP = 1e-2   # between the best two logits of a greedy step


def build(config, seed):
    """The model with weights large enough that routing is decided well away from ties."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(1.0, 0.2)
            elif name.endswith("gate.weight"):
                parameter.normal_(0.0, 0.3)
            elif "embed_tokens" in name:
                parameter.normal_(0.0, 0.5)
            else:
                parameter.normal_(0.0, 0.25)
    return model


def plain_case(seed):
    """B 2, S 13, nothing masked, labels equal to the ids."""
    ids = torch.randint(3, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(1000 + seed))
    return dict(input_ids=ids, labels=ids.clone(), attention_mask=torch.ones_like(ids))


def masked_case(seed):
    """B 3, S 11, lengths 11, 7 and 4 padded on the right; labels -100 on padding and on a prompt of 2 tokens."""
    ids = torch.randint(3, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(2000 + seed))
    mask = (torch.arange(11)[None] < torch.tensor([11, 7, 4])[:, None]).long()
    ids = ids * mask
    labels = ids.masked_fill(mask == 0, -100)
    labels[1, :2] = -100
    labels[0, 5] = -100
    return dict(input_ids=ids, labels=labels, attention_mask=mask)


def margin(router_logits, k, mask):
    """The least gap between the K-th and the next score over tokens that count."""
    least = float("inf")
    for logits in router_logits:
        scores = torch.softmax(logits.float(), dim=-1)[mask.reshape(-1) > 0].sort(dim=-1, descending=True).values
        least = min(least, (scores[:, k - 1] - scores[:, k]).min().item())
    return least


def moe_layers(model):
    return [i for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "experts")]


def run_case(model, case):
    """Tensors of one forward and backward of the total loss, and the least routing gap."""
    model.zero_grad(set_to_none=True)
    out = model(**case, output_router_logits=True, output_hidden_states=True, use_cache=False)
    lm_loss = model(**case, output_router_logits=False, use_cache=False).loss
    coefficient = model.config.router_aux_loss_coef
    assert torch.allclose(out.loss, lm_loss + coefficient * out.aux_loss, rtol=1e-6)

    gates = {n: p for n, p in model.named_parameters() if n.endswith("gate.weight")}
    balance = torch.autograd.grad(out.aux_loss, list(gates.values()), retain_graph=True)
    out.loss.backward()

    kind = model.config.model_type
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    result = dict(case, logits=out.logits, loss=out.loss, lm_loss=lm_loss, balance_loss=out.aux_loss)
    for layer, logits in zip(moe_layers(model), out.router_logits, strict=True):
        result[f"router_logits.{layer}"] = logits
    for layer, hidden in enumerate(out.hidden_states):
        result[f"hidden.{layer}"] = hidden
    for name, value in hub_tensors(kind, gradients).items():
        result[f"grad.{name}"] = value
    for name, value in hub_tensors(kind, dict(zip(gates, balance))).items():
        result[f"balance_grad.{name}"] = value
    return result, margin(out.router_logits, model.config.num_experts_per_tok, case["attention_mask"])


@torch.no_grad()
def greedy(model, prompt, count):
    """Greedy tokens from whole forwards without a cache, checked against `generate`; and the two least gaps."""
    ids, logit_gap, router_gap = prompt[None], float("inf"), float("inf")
    for _ in range(count):
        out = model(input_ids=ids, output_router_logits=True, use_cache=False)
        best = out.logits[0, -1].topk(2)
        logit_gap = min(logit_gap, (best.values[0] - best.values[1]).item())
        router_gap = min(router_gap, margin(out.router_logits, model.config.num_experts_per_tok, torch.ones_like(ids)))
        ids = torch.cat([ids, best.indices[None, :1]], dim=1)
    made = ids[0, len(prompt):]
    if model.config.eos_token_id not in made.tolist():
        by_cache = model.generate(prompt[None], max_new_tokens=count, do_sample=False, pad_token_id=0)[0, len(prompt):]
        assert torch.equal(by_cache, made), "generate with a cache differs from whole forwards"
    else:
        logit_gap = 0.0
    return made, logit_gap, router_gap


@contextlib.contextmanager
def clipped(model, limit):
    """Clips query, key and value to +-limit inside the block; None leaves the configuration as it is."""
    if limit is None:
        yield
        return
    model.config.clip_qkv = limit
    try:
        yield
    finally:
        model.config.clip_qkv = None


@torch.no_grad()
def case_margin(model, case):
    """The least routing gap of a case, with and without clipped projections where the model has them."""
    k, gap = model.config.num_experts_per_tok, float("inf")
    for clip in CLIPS[model.config.model_type]:
        with clipped(model, clip):
            logits = model(**case, output_router_logits=True, use_cache=False).router_logits
        gap = min(gap, margin(logits, k, case["attention_mask"]))
    return gap


def settled_case(model, make):
    """The first case of `make(seed)` in which no choice of expert is close to a tie."""
    return next(c for c in map(make, range(1000)) if case_margin(model, c) > LEAST_ROUTER_GAP)


def settled_prompt(model, length):
    """The first prompt whose greedy continuation is settled, varied, and never meets the end-of-sequence id."""
    for seed in range(1000):
        prompt = torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(3000 + seed))
        made, logit_gap, router_gap = greedy(model, prompt, 16)
        if logit_gap > LEAST_LOGIT_GAP and router_gap > LEAST_ROUTER_GAP and len(set(made.tolist())) >= 8:
            return prompt, made
    raise RuntimeError("no settled prompt in 1000 seeds")


def everything(model):
    """All tensors of golden.safetensors."""
    cases = {"plain": settled_case(model, plain_case), "masked": settled_case(model, masked_case)}
    tensors, gaps = {}, []
    for label, case in cases.items():
        result, gap = run_case(model, case)
        gaps.append(gap)
        tensors |= {f"{label}.{n}": v for n, v in result.items()}
    if len(CLIPS[model.config.model_type]) > 1:
        with clipped(model, CLIP_QKV):
            result, gap = run_case(model, cases["plain"])
        gaps.append(gap)
        tensors |= {f"clip.{n}": v for n, v in result.items()}
        assert not torch.allclose(tensors["clip.logits"], tensors["plain.logits"], rtol=1e-2)
    for index, length in enumerate([5, 3]):
        tensors[f"generate.prompt.{index}"], tensors[f"generate.tokens.{index}"] = settled_prompt(model, length)
    return tensors, min(gaps)


def save_folder(model, folder):
    """The folder as `save_pretrained` writes it, checked to hold per-expert Hub names and the same bits."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    expected = hub_tensors(model.config.model_type, dict(model.named_parameters()))
    written = load_file(folder / "model.safetensors")
    if written.keys() != expected.keys():
        write_tensors(folder / "model.safetensors", expected)
        written = load_file(folder / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[n], expected[n]) for n in expected)
    (folder / "model.safetensors").chmod(0o644)


def save_older_config(model, folder):
    """config.v4.json: the same settings under the keys that folders on the Hub have, checked by loading them."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": None, "torch_dtype": config.pop("dtype"),
               "transformers_version": "4.51.0"}
    if config["model_type"] != "mixtral":
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))
    write_json(folder / "config.v4.json", config)
    if config["model_type"] == "olmoe":
        write_json(folder / "config.clip.json", json.loads((folder / "config.json").read_text())
                   | {"clip_qkv": CLIP_QKV})
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(folder / "model.safetensors", scratch)
        shutil.copy(folder / "config.v4.json", Path(scratch) / "config.json")
        return AutoModelForCausalLM.from_pretrained(
            scratch, attn_implementation="eager", experts_implementation="eager").eval()


def save_fused(model, folder):
    """The same model under transformers v5's fused in-memory names, in two shards with an index."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    fused = {n: p.detach() for n, p in model.named_parameters()}
    names, shards, index = sorted(fused), {}, {}
    for name in names:
        part = 1 if name < "model.layers.1" else 2
        index[name] = f"model-{part:05d}-of-00002.safetensors"
        shards.setdefault(index[name], {})[name] = fused[name]
    for file, tensors in shards.items():
        write_tensors(folder / file, tensors)
    total = sum(p.numel() * p.element_size() for p in fused.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def main():
    deterministic()
    for seed, (name, config) in enumerate(MODELS.items()):
        model = build(config, seed)
        tensors, gap = everything(model)
        folder = GOLDENS / name
        save_folder(model, folder)
        notes = {"router_aux_loss_coef": config.router_aux_loss_coef, "least_router_gap": f"{gap:.3g}"}
        if len(CLIPS[name]) > 1:
            notes["clip_qkv"] = CLIP_QKV
        write_tensors(folder / "golden.safetensors", tensors, notes | versions("torch", "transformers"))
        reloaded = save_older_config(model, folder)
        case = {n: tensors[f"plain.{n}"] for n in ("input_ids", "labels", "attention_mask")}
        again = reloaded(**case, output_router_logits=True, use_cache=False)
        assert torch.equal(again.logits, tensors["plain.logits"]), f"{name}: the older config loads differently"
        assert torch.equal(again.loss, tensors["plain.loss"])
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, least routing gap {gap:.3g}")
        if name == "mixtral":
            save_fused(model, GOLDENS / "mixtral_fused")


if __name__ == "__main__":
    main()
