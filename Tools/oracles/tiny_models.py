"""Random tiny models of the families that Apus reads, with their logits, losses, routing, gradients and greedy text.

Writes Tests/Goldens/<model>/: a Hugging Face folder and golden.safetensors; of the models named as arguments, or of all.
README.md says what each tensor is.
Inputs are the first of a row of seeds for which no routing choice and no greedy token is near a tie: see `margin`.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    MixtralConfig,
    OlmoeConfig,
    Qwen3MoeConfig,
)

from goldens import GOLDENS, deterministic, hub_tensors, versions, write_json, write_tensors

VOCABULARY = 96
BASE = dict(vocab_size=VOCABULARY, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=False, output_router_logits=False)
COMMON = BASE | dict(router_aux_loss_coef=0.05)
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
    # Values wider than keys, queries straight from the stream.
    "deepseek_v2": DeepseekV2Config(
        hidden_size=24, intermediate_size=32, moe_intermediate_size=8, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=10, qk_nope_head_dim=4, qk_rope_head_dim=6, v_head_dim=12,
        n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, first_k_dense_replace=1, n_group=4, topk_group=2,
        topk_method="group_limited_greedy", routed_scaling_factor=4.0, norm_topk_prob=False, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, **BASE),
    # Values narrower than keys, compressed queries, stretched positions; the norms of what is compressed add 1e-6 whatever
    # rms_norm_eps is, which is large here to tell them apart.
    "deepseek_v3": DeepseekV3Config(
        hidden_size=24, intermediate_size=32, moe_intermediate_size=8, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, q_lora_rank=14, kv_lora_rank=10, qk_nope_head_dim=8, qk_rope_head_dim=6, v_head_dim=6,
        n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, first_k_dense_replace=1, n_group=4, topk_group=2,
        routed_scaling_factor=2.5, norm_topk_prob=True, rope_interleave=True, rms_norm_eps=1e-3, num_mtp_layers=0,
        rope_parameters={"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
                         "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
                         "mscale_all_dim": 0.7}, **BASE | {"max_position_embeddings": 256}),
}
# A second setting of a family's model, as a case of its own: its name, the key, and the value.
VARIANTS = {"olmoe": ("clip", "clip_qkv", 1.25), "deepseek_v3": ("halves", "rope_interleave", False)}
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
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0.0, 0.1)
    return model


def routers(model):
    return [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "experts")]


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


def gap(scores, k):
    """The least gap between the K-th and the next of each row; infinite when all are taken."""
    best = scores.sort(dim=-1, descending=True).values
    return (best[:, k - 1] - best[:, k]).min().item() if k < scores.shape[1] else float("inf")


def margin(model, router_logits, mask):
    """The least gap between the K-th and the next score over tokens that count, and between groups where these are chosen."""
    least, config = float("inf"), model.config
    for gate, logits in zip(routers(model), router_logits, strict=True):
        logits = logits.float()[mask.reshape(-1) > 0]
        if config.model_type == "deepseek_v3":
            scores = torch.sigmoid(logits) + gate.e_score_correction_bias
        else:
            scores = torch.softmax(logits, dim=-1)
        if config.model_type.startswith("deepseek"):
            groups = scores.unflatten(1, (config.n_group, -1))
            worth = groups.topk(2, dim=-1).values.sum(-1) if config.model_type == "deepseek_v3" else groups.amax(-1)
            least = min(least, gap(worth, config.topk_group))
            inside = torch.zeros_like(worth).scatter_(1, worth.topk(config.topk_group).indices, 1)
            scores = groups.masked_fill(inside[..., None] == 0, -1.0).flatten(1)
        least = min(least, gap(scores, config.num_experts_per_tok))
    return least


def moe_layers(model):
    return [i for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "experts")]


def run_case(model, case):
    """Tensors of one forward and backward of the total loss, and the least routing gap."""
    model.zero_grad(set_to_none=True)
    out = model(**case, output_router_logits=True, output_hidden_states=True, use_cache=False)
    lm_loss = model(**case, output_router_logits=False, use_cache=False).loss
    balance_loss = getattr(out, "aux_loss", None)  # DeepSeek models have none
    gates = {n: p for n, p in model.named_parameters() if n.endswith("gate.weight")}
    balance = []
    if balance_loss is not None:
        assert torch.allclose(out.loss, lm_loss + model.config.router_aux_loss_coef * balance_loss, rtol=1e-6)
        balance = torch.autograd.grad(balance_loss, list(gates.values()), retain_graph=True)
    out.loss.backward()

    kind = model.config.model_type
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    result = dict(case, logits=out.logits, loss=out.loss, lm_loss=lm_loss)
    if balance_loss is not None:
        result["balance_loss"] = balance_loss
    for layer, logits in zip(moe_layers(model), out.router_logits, strict=True):
        result[f"router_logits.{layer}"] = logits
    for layer, hidden in enumerate(out.hidden_states):
        result[f"hidden.{layer}"] = hidden
    for name, value in hub_tensors(kind, gradients).items():
        result[f"grad.{name}"] = value
    for name, value in hub_tensors(kind, dict(zip(gates, balance))).items():
        result[f"balance_grad.{name}"] = value
    return result, margin(model, out.router_logits, case["attention_mask"])


@torch.no_grad()
def greedy(model, prompt, count):
    """Greedy tokens from whole forwards without a cache, checked against `generate`; and the two least gaps."""
    ids, logit_gap, router_gap = prompt[None], float("inf"), float("inf")
    for _ in range(count):
        out = model(input_ids=ids, output_router_logits=True, use_cache=False)
        best = out.logits[0, -1].topk(2)
        logit_gap = min(logit_gap, (best.values[0] - best.values[1]).item())
        router_gap = min(router_gap, margin(model, out.router_logits, torch.ones_like(ids)))
        ids = torch.cat([ids, best.indices[None, :1]], dim=1)
    made = ids[0, len(prompt):]
    if model.config.eos_token_id not in made.tolist():
        by_cache = model.generate(prompt[None], max_new_tokens=count, do_sample=False, pad_token_id=0)[0, len(prompt):]
        assert torch.equal(by_cache, made), "generate with a cache differs from whole forwards"
    else:
        logit_gap = 0.0
    return made, logit_gap, router_gap


@contextlib.contextmanager
def varied(model):
    """The family's second setting inside the block; nothing where it has none."""
    if model.config.model_type not in VARIANTS:
        yield
        return
    _, key, value = VARIANTS[model.config.model_type]
    before = getattr(model.config, key)
    setattr(model.config, key, value)
    try:
        yield
    finally:
        setattr(model.config, key, before)


@torch.no_grad()
def case_margin(model, case):
    """The least routing gap of a case, with and without the family's second setting."""
    least = float("inf")
    for setting in (contextlib.nullcontext(), varied(model)):
        with setting:
            logits = model(**case, output_router_logits=True, use_cache=False).router_logits
        least = min(least, margin(model, logits, case["attention_mask"]))
    return least


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
    if model.config.model_type in VARIANTS:
        label = VARIANTS[model.config.model_type][0]
        with varied(model):
            result, gap = run_case(model, cases["plain"])
        gaps.append(gap)
        if model.config.model_type.startswith("deepseek"):
            result = {n: result[n] for n in ("input_ids", "labels", "attention_mask", "logits", "lm_loss", "loss")}
        tensors |= {f"{label}.{n}": v for n, v in result.items()}
        assert not torch.allclose(tensors[f"{label}.logits"], tensors["plain.logits"], rtol=1e-2)
    for index, length in enumerate([5, 3]):
        tensors[f"generate.prompt.{index}"], tensors[f"generate.tokens.{index}"] = settled_prompt(model, length)
    return tensors, min(gaps)


def stored(model):
    """What a file of the model holds: its parameters, and the buffers that are kept."""
    biases = {n: b for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")}
    return dict(model.named_parameters()) | biases


def save_folder(model, folder):
    """The folder as `save_pretrained` writes it, checked to hold per-expert Hub names and the same bits."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    expected = hub_tensors(model.config.model_type, stored(model))
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
    scaling = None
    if rope["rope_type"] != "default":
        scaling = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")} | {"type": rope["rope_type"]}
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "torch_dtype": config.pop("dtype"),
               "transformers_version": "4.51.0"}
    if config["model_type"] in ("olmoe", "qwen3_moe"):
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))
    write_json(folder / "config.v4.json", config)
    if config["model_type"] in VARIANTS:
        label, key, value = VARIANTS[config["model_type"]]
        write_json(folder / f"config.{label}.json", json.loads((folder / "config.json").read_text()) | {key: value})
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
    wanted = sys.argv[1:] or list(MODELS)
    if unknown := set(wanted) - set(MODELS):
        sys.exit(f"no model is named {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    for seed, (name, config) in enumerate(MODELS.items()):
        if name not in wanted:
            continue
        model = build(config, seed)
        tensors, gap = everything(model)
        folder = GOLDENS / name
        save_folder(model, folder)
        notes = {"least_router_gap": f"{gap:.3g}"}
        if hasattr(config, "router_aux_loss_coef"):
            notes = {"router_aux_loss_coef": config.router_aux_loss_coef} | notes
        if name in VARIANTS:
            notes[VARIANTS[name][1]] = VARIANTS[name][2]
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
