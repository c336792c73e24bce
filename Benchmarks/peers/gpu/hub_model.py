"""The preset `olmoe-8-layers` in transformers: OLMoE with half the layers and experts twice as wide, 6.78 B parameters.

Used by hub_step.py and hub_generate.py.
"""

import torch
from transformers import AutoModelForCausalLM, OlmoeConfig


def configuration(layers=8, width=2048, expert_width=2048, experts=64, choices=8, heads=16, vocabulary=50304):
    return OlmoeConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=expert_width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, num_experts=experts, num_experts_per_tok=choices,
        max_position_embeddings=4096, output_router_logits=False, router_aux_loss_coef=0.0, tie_word_embeddings=False)


def build(**sizes):
    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(
            configuration(**sizes), dtype=torch.bfloat16, attn_implementation="sdpa",
            experts_implementation="grouped_mm")
