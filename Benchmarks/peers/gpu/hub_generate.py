"""Greedy generation in transformers: the peer of `apus bench generate --preset olmoe-8-layers --precision bf16`.

Decode alone is timed: a run of N new tokens less a run of one, which is the prompt's. Prints one JSON object.
"""

import argparse
import json
import statistics
import time

import torch

import hub_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt-length", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=17)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=8)
    args = parser.parse_args()
    model = hub_model.build(layers=args.layers).eval()

    def run(prompts, count):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        model.generate(prompts, attention_mask=torch.ones_like(prompts), min_new_tokens=count, max_new_tokens=count,
                       do_sample=False, pad_token_id=0)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    speeds = {}
    with torch.inference_mode():
        for batch in args.batch:
            prompts = torch.randint(model.config.vocab_size, (batch, args.prompt_length), device="cuda")
            run(prompts, 2)
            rates = [batch * (args.max_tokens - 1) / (run(prompts, args.max_tokens) - run(prompts, 1))
                     for _ in range(args.rounds)]
            speeds[batch] = statistics.median(rates)
    print(json.dumps({"program": "transformers", "decode_tokens_per_second": speeds,
                      "peak_bytes": torch.cuda.max_memory_allocated()}))


if __name__ == "__main__":
    main()
