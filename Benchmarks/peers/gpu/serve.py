"""Runs the peers of one GPU on request, so that each is built and compiled once and can alternate with another program.

Prints a line about the machine, then answers each line of standard input, a JSON object {"peer": NAME, ...arguments},
with one of results; {"error": ...} where the peer failed. Between requests it holds no memory but its layers' weights.
"""

import gc
import json
import sys
import traceback

import torch

import attention
import moe_layer
import one_hot_routing
import products

peers = {
    "attention": attention.measure, "moe_layer": moe_layer.measure, "one_hot_routing": one_hot_routing.measure,
    "matmul": products.measure, "bmm": products.measure_batched, "forget": lambda: moe_layer.forget() or {},
}


def main():
    properties = torch.cuda.get_device_properties(0)
    print(json.dumps({
        "device": properties.name, "memory_bytes": properties.total_memory, "torch": torch.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = peers[request.pop("peer")](**request)
        except Exception as problem:
            traceback.print_exc()
            result = {"error": f"{type(problem).__name__}: {problem}".splitlines()[0]}
        gc.collect()
        torch.cuda.empty_cache()
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
