"""Products of uneven experts in PyTorch, a loop over experts: the peer of `apus bench grouped`.

Loads fall as there, by Zipf's law in a mixed order. Reads lines from standard input: a form (forward, data gradient,
weight gradient) in, the seconds of one pass out.

Usage:
    python grouped_products.py --rows 4096 --experts 64 --inputs 512 --outputs 1024 --threads 2 --dtype f32
"""

import argparse
import sys
import time

import torch


def loads(rows, experts):
    shares = [1 / (1 + index * 7919 % experts) for index in range(experts)]
    bounds, total = [0], 0.0
    for share in shares:
        total += share
        bounds.append(int(total / sum(shares) * rows + 0.5))
    return bounds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--outputs", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    bounds = loads(args.rows, args.experts)
    x = torch.randn(args.rows, args.inputs, dtype=dtype)
    dy = torch.randn(args.rows, args.outputs, dtype=dtype)
    weights = torch.randn(args.experts, args.outputs, args.inputs, dtype=dtype)
    gradient = torch.zeros(args.experts, args.outputs, args.inputs, dtype=dtype)
    y, dx = torch.empty_like(dy), torch.empty_like(x)

    def forward(expert, rows):
        torch.mm(x[rows], weights[expert].T, out=y[rows])

    def data_gradient(expert, rows):
        torch.mm(dy[rows], weights[expert], out=dx[rows])

    def weight_gradient(expert, rows):
        gradient[expert].addmm_(dy[rows].T, x[rows])

    forms = {"forward": forward, "data gradient": data_gradient, "weight gradient": weight_gradient}
    print("ready", torch.__version__, flush=True)
    with torch.no_grad():
        for line in sys.stdin:
            product = forms[line.strip()]
            begin = time.perf_counter()
            for expert, (first, last) in enumerate(zip(bounds, bounds[1:])):
                product(expert, slice(first, last))
            print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
