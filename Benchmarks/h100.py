"""Measures Apus on one H100 beside its Python peers, and writes Benchmarks/reports/h100.md.

Programs that are compared take turns within one run. What is measured goes to a folder, a JSON file a part, after every
figure; the report is made of that folder, perhaps later and on another machine.

Usage, on the machine with the GPU, with a Python that has torch and transformers, perhaps sonic-moe:
    python Benchmarks/h100.py measure --apus .build/release/apus --parts layer,attention --data h100
    python Benchmarks/h100.py measure --parts gemm,blocksparse,routing,generate --data h100
    python Benchmarks/h100.py measure --parts train --data h100
and anywhere:
    python Benchmarks/h100.py report --data h100
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

here = pathlib.Path(__file__).resolve().parent
peers = here / "peers" / "gpu"

# T, D, F, E, K, as `apus bench --shape` has them.
SHAPES = {
    "olmoe": (32768, 2048, 1024, 64, 8), "qwen3-30b": (32768, 2048, 768, 128, 8),
    "megablocks-medium": (32768, 1024, 4096, 64, 1), "mixtral": (16384, 4096, 14336, 8, 2),
    "fine-grained": (24576, 1536, 256, 128, 8),
}
ATTENTION = [(8, 16, 2048, 128), (4, 16, 4096, 128), (16, 16, 1024, 64), (1, 32, 8192, 128)]
PRODUCTS = [(8192, 8192, 8192), (8192, 6144, 2048), (8192, 2048, 2048), (262144, 2048, 2048)]
ROUTING = {"tokens": 4096, "width": 2048, "experts": 64, "choices": 2}
MODEL = "olmoe-8-layers"
LENGTH = 2048


class Peers:
    """The Python process that holds the peers."""

    def __init__(self, python):
        self.process = subprocess.Popen([python, "serve.py"], cwd=peers, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.machine = json.loads(self.process.stdout.readline())

    def ask(self, peer, **request):
        if self.process.poll() is not None:
            return {"error": f"the peers ended with status {self.process.returncode}"}
        self.process.stdin.write(json.dumps({"peer": peer, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the peers ended with status {self.process.wait()}"}

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def run(command, directory=None):
    """The JSON object that a program prints, or its error."""
    begin = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=directory)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [""]
        result = {"error": f"status {done.returncode}: {lines[-1]}"}
    else:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{time.perf_counter() - begin:6.1f} s  {' '.join(map(str, command[1:]))}  {result.get('error', '')}",
          file=sys.stderr, flush=True)
    return result


class Bench:
    """One part: its peers, and a file that holds every figure as soon as it is there."""

    def __init__(self, part, args):
        self.args, self.path = args, pathlib.Path(args.data) / f"{part}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.data = {"part": part, "rounds": args.rounds, "figures": []}

    def save(self, **figure):
        self.data["figures"].append(figure)
        self.path.write_text(json.dumps(self.data, indent=1))

    def ours(self, *options, precision="bf16-pure"):
        return run([self.args.apus, "bench", *options, "--device", "cuda", "--precision", precision, "--json"])

    def in_turn(self, forms):
        """The results of each form by round, the order turned round every time."""
        results = {name: [] for name in forms}
        for index in range(self.args.rounds):
            for name in list(forms) if index % 2 == 0 else reversed(list(forms)):
                results[name].append(forms[name]())
        return results


def layer(bench, peers):
    # SonicMoE has a process of its own: after a fault in a kernel a process can measure nothing more.
    sonic = Peers(bench.args.python)
    for name, sizes in SHAPES.items():
        request = dict(zip(("tokens", "width", "expert_width", "experts", "choices"), sizes))

        def ours(routing, precision="bf16-pure"):
            return lambda: bench.ours("moe-layer", "--shape", name, "--routing", routing, "--rounds", "15",
                                      precision=precision)

        def theirs(routing, form, rounds):
            asked = sonic if form == "sonic" else peers
            return lambda: asked.ask("moe_layer", form=form, routing=routing, rounds=rounds, **request)

        for routing in ("balanced", "zipf", "half") if name == "olmoe" else ("balanced",):
            results = bench.in_turn({"apus": ours(routing), "compiled": theirs(routing, "compiled", 15),
                                     "sonic": theirs(routing, "sonic", 15)})
            if routing == "balanced":
                results |= {"apus_master": [ours(routing, "bf16")()], "eager": [theirs(routing, "eager", 5)()]}
            bench.save(shape=name, sizes=sizes, routing=routing, results=results)
        peers.ask("forget")
        if any("error" in result and "No module named" not in result["error"] for result in results["sonic"]):
            sonic.end()
            sonic = Peers(bench.args.python)
        sonic.ask("forget")
    sonic.end()


def attention(bench, peers):
    for sizes in ATTENTION:
        shape = "x".join(map(str, (sizes[0], sizes[1], sizes[2], sizes[3])))
        request = dict(zip(("batch", "heads", "sequence", "head_width"), sizes))
        bench.save(sizes=sizes, results=bench.in_turn({
            "apus": lambda: bench.ours("attention", "--shape", shape, "--rounds", "20"),
            "apus_free": lambda: bench.ours("attention", "--shape", shape, "--rounds", "20", "--no-deterministic"),
            "torch": lambda: peers.ask("attention", **request)}))


def gemm(bench, peers):
    shapes = [option for sizes in PRODUCTS for option in ("--shape", "x".join(map(str, sizes)))]
    bench.save(sizes=PRODUCTS, results=bench.in_turn({
        "apus": lambda: bench.ours("gemm", *shapes),
        "torch": lambda: {"shapes": [peers.ask("matmul", m=m, n=n, k=k) for m, n, k in PRODUCTS]}}))


def blocksparse(bench, peers):
    for name, routing in (("megablocks-medium", "balanced"), ("megablocks-medium", "zipf"), ("olmoe", "balanced")):
        tokens, width, expert_width, experts, choices = SHAPES[name]
        forms = {"apus": lambda: bench.ours("blocksparse", "--shape", name, "--routing", routing)}
        if routing == "balanced":
            forms["torch"] = lambda: peers.ask(
                "bmm", rows=tokens * choices, experts=experts, width=width, expert_width=expert_width)
        bench.save(shape=name, sizes=SHAPES[name], routing=routing, results=bench.in_turn(forms))


def routing(bench, peers):
    options = [option for key, value in ROUTING.items() for option in (f"--{key}", str(value))]
    bench.save(sizes=ROUTING, results=bench.in_turn({
        "apus": lambda: bench.ours("routing", *options),
        "eager": lambda: peers.ask("one_hot_routing", **ROUTING),
        "compiled": lambda: peers.ask("one_hot_routing", form="compiled", **ROUTING)}))


def train(bench, _):
    """Each program needs the whole memory, so they run one after another: ours before and after the peer."""
    def ours(batch):
        return bench.ours("train", "--preset", MODEL, "--batch", batch, "--sequence", LENGTH, "--steps", 12,
                          "--warmup", 3)

    def theirs(*options):
        return run([bench.args.python, "hub_step.py", "--sequence", LENGTH, *options], peers)

    bench.save(program="apus", batch=4, result=ours(4))
    bench.save(program="compiled", batch=4, result=theirs("--compile"))
    bench.save(program="apus", batch=4, result=ours(4))
    bench.save(program="eager", batch=4, result=theirs())
    bench.save(program="apus", batch=8, result=ours(8))


def generate(bench, _):
    bench.save(program="transformers", result=run([bench.args.python, "hub_generate.py"], peers))
    for batch in (1, 8, 64):
        bench.save(program="apus", batch=batch, result=bench.ours(
            "generate", "--preset", MODEL, "--batch", batch, "--prompt-length", 128, "--max-tokens", 64,
            precision="bf16"))


PARTS = {"layer": layer, "attention": attention, "gemm": gemm, "blocksparse": blocksparse, "routing": routing,
         "train": train, "generate": generate}


def measure(args):
    server = None
    for part in args.parts.split(","):
        begin = time.perf_counter()
        bench = Bench(part, args)
        bench.data["libraries"] = run([args.apus, "doctor", "--device", "cuda", "--skip-speed", "--only", "add bias",
                                       "--json"]).get("libraries")
        if part in ("train", "generate"):
            # These need the whole memory for one program at a time.
            if server:
                server.end()
            server = None
        else:
            server = server or Peers(args.python)
            bench.data["machine"] = server.machine
        PARTS[part](bench, server)
        bench.data["seconds"] = time.perf_counter() - begin
        bench.path.write_text(json.dumps(bench.data, indent=1))
        print(f"{part}: {bench.data['seconds']:.0f} s", file=sys.stderr, flush=True)
    if server:
        server.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure", help="on the machine with the GPU")
    one.add_argument("--apus", default=str(here.parent / ".build/release/apus"))
    one.add_argument("--python", default=sys.executable, help="a Python that has torch and transformers")
    one.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    one.add_argument("--rounds", type=int, default=3, help="how often each program has its turn")
    one.add_argument("--data", default="h100", help="the folder that figures go to")
    two = commands.add_parser("report", help="from the figures")
    two.add_argument("--data", default="h100")
    two.add_argument("--out", default=str(here / "reports/h100.md"))
    args = parser.parse_args()
    if args.command == "measure":
        unknown = set(args.parts.split(",")) - set(PARTS)
        if unknown:
            parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        args.apus = os.path.abspath(args.apus)
        measure(args)
    else:
        from h100_report import write
        write(args.data, args.out)


if __name__ == "__main__":
    main()
