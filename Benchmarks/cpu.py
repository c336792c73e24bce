"""Writes Benchmarks/reports/cpu.md: what Apus reaches on this machine's CPU, beside PyTorch.

Programs that are compared run in turn, block by block, in one run. Every table names the command that makes it.

Usage, with a Python that has the packages of Tools/oracles/requirements.txt, on a machine that does nothing else:
    python Benchmarks/cpu.py --apus .build/release/apus
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import types

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here / "peers"))
from alternate_train import Program  # noqa: E402


def ask(command):
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def table(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine(args):
    checks = ask([args.apus, "doctor", "--json", "--threads", str(args.threads)])
    return checks


def step(args):
    """The step of both programs in both precisions, in turn."""
    programs = []
    for dtype in ("f32", "bf16"):
        programs.append(Program(f"Apus {dtype}", [
            args.apus, "bench", "train", "--threads", str(args.threads), "--precision", dtype, "--interactive"]))
        programs.append(Program(f"PyTorch {dtype}", [
            args.python, str(here / "peers/train_step.py"), "--threads", str(args.threads), "--dtype", dtype,
            "--interactive"]))
    for round in range(args.rounds + 1):
        for program in programs if round % 2 else reversed(programs):
            program.block(4, counts=round > 0)
    for program in programs:
        program.quit()
    reference = min((p for p in programs if p.name.startswith("PyTorch")), key=lambda p: p.median)
    f32 = next(p for p in programs if p.name == "PyTorch f32")
    rows = []
    for p in programs:
        tokens = p.last["tokens_per_step"]
        rows.append([p.name, f"{p.median * 1e3:.0f}", f"{min(p.seconds) * 1e3:.0f} to {max(p.seconds) * 1e3:.0f}",
                     f"{tokens / p.median:.0f}", f"{f32.median / p.median:.2f}", f"{reference.median / p.median:.2f}",
                     f"{p.last['peak_rss_bytes'] / 2**20:.0f}", p.last.get("system_allocations", "")])
    return table(["program", "median ms", "range ms", "tokens/s", "times PyTorch f32", "times PyTorch's better",
                  "peak RSS MiB", "system allocations"], rows)


def phases(args, dtype):
    result = ask([args.apus, "bench", "train", "--threads", str(args.threads), "--precision", dtype, "--phases",
                  "--steps", "12", "--json"])
    rows = []
    for phase in result["phases"]:
        seconds = phase["forward_seconds"] + phase["backward_seconds"]
        if seconds < 2e-4:
            continue
        flop = phase["flop"]
        rows.append([phase["op"], f"{phase['forward_seconds'] * 1e3:.1f}", f"{phase['backward_seconds'] * 1e3:.1f}"] +
                    ([f"{flop / 1e9:.1f}", f"{flop / result['peak_gflops'] / 1e6:.1f}", f"{phase['of_peak'] * 100:.0f} %"]
                     if flop else ["", "", ""]))
    text = table(["op", "forward ms", "backward ms", "GFLOP", "floor ms", "of peak"], rows)
    return f"{text}\n\nPeak of the same run: {result['peak_gflops']:.0f} GFLOP/s; median step " \
           f"{result['median_seconds'] * 1e3:.0f} ms."


def grouped(args, dtype):
    """Our products and a loop over experts in PyTorch, in turn."""
    command = [args.apus, "bench", "grouped", "--threads", str(args.threads), "--precision", dtype, "--json",
               "--rounds", "5"]
    peer = subprocess.Popen([args.python, str(here / "peers/grouped_products.py"), "--threads", str(args.threads),
                             "--dtype", dtype], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    peer.stdout.readline()
    ours, theirs, peaks, flop = {}, {}, [], 0
    for round in range(args.rounds + 1):
        result = ask(command)
        flop = 2 * result["rows"] * result["inputs"] * result["outputs"]
        for form in result["forms"]:
            name = form["form"]
            for _ in range(5):
                peer.stdin.write(name + "\n")
                peer.stdin.flush()
                seconds = float(peer.stdout.readline())
                if round:
                    theirs.setdefault(name, []).append(flop / seconds / 1e9)
            if round:
                ours.setdefault(name, []).append(form)
        peaks.append(result["peak_gflops"])
    peer.stdin.close()
    peer.wait()
    peak = statistics.median(peaks)
    rows = []
    for name, forms in ours.items():
        apus = statistics.median(form["auto_gflops"] for form in forms)
        one = [form["onednn_gflops"] for form in forms if "onednn_gflops" in form]
        torch = statistics.median(theirs[name])
        rows.append([name, f"{apus:.0f}", f"{max(form['auto_gflops'] for form in forms):.0f}",
                     f"{statistics.median(one):.0f}" if one else "", f"{torch:.0f}", f"{apus / torch:.2f}",
                     f"{apus / peak * 100:.0f} %"])
    return table([f"{dtype} GFLOP/s", "Apus", "Apus, best round", "oneDNN loop", "PyTorch loop", "times PyTorch",
                  "of peak"], rows) + f"\n\nPeak of the same run: {peak:.0f} GFLOP/s."


def layer(args, *options):
    return ask([args.apus, "bench", "moe-layer", "--threads", str(args.threads), "--json", *map(str, options)])


def experts(args, tokens, width_of):
    rows, first = [], None
    for count in (8, 16, 32, 64, 128, 256):
        result = layer(args, "--tokens", tokens, "--experts", count, "--expert-width", width_of(count), "--rounds", "7")
        bank = result["banks"][0]
        time = (bank["forward_seconds"] + bank["backward_seconds"]) / tokens * 1e6
        first = first or time
        rows.append([count, width_of(count), f"{time:.1f}", f"{time / first:.2f}", f"{bank['gflops']:.0f}"])
    return table(["E", "F", "us a token", "times E = 8", "GFLOP/s"], rows)


def banks(args, routing):
    result = layer(args, "--tokens", 4096, "--width", 512, "--expert-width", 1024, "--experts", 16, "--routing", routing,
                   "--bank", "grouped", "--bank", "block-sparse", "--bank", "padded:1", "--bank", "padded:1.5",
                   "--bank", "padded:2", "--bank", "padded:all", "--rounds", "9")
    rows = [[b["bank"], f"{b['forward_seconds'] * 1e3:.1f}", f"{b['backward_seconds'] * 1e3:.1f}",
             f"{b['speed_to_first']:.2f}", f"{b['dropped_fraction'] * 100:.1f} %", f"{b['gflops']:.0f}",
             f"{b['peak_bytes'] / 2**20:.0f}"] for b in result["banks"]]
    head = ["bank", "forward ms", "backward ms", "speed to grouped", "choices dropped", "useful GFLOP/s", "memory MiB"]
    return f"The fullest expert has {result['peak_load_to_mean']:.2f} times the mean.\n\n" + table(head, rows)


def generate(args):
    rows = []
    for dtype in ("f32", "bf16"):
        result = ask([args.apus, "bench", "generate", "--preset", "megablocks-moe-xs", "--threads", str(args.threads),
                      "--precision", dtype, "--json"])
        rows.append([dtype, f"{result['decode_tokens_per_second']:.1f}", f"{result['active_bytes'] / 2**20:.0f}",
                     f"{result['active_bytes_per_second'] / 1e9:.1f}", f"{result['memory_bytes_per_second'] / 1e9:.1f}",
                     f"{result['of_bandwidth'] * 100:.0f} %"])
    return table(["weights", "tokens/s", "active MiB", "active GB/s", "memory GB/s", "of memory"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--apus", default=str(here.parent / ".build/release/apus"))
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6, help="blocks of each program that count")
    parser.add_argument("--out", default=str(here / "reports/cpu.md"))
    args = parser.parse_args()
    facts = machine(args)
    speed = facts["speed"]
    shown = (f"{facts['cores']} cores of {facts['processor']} ({', '.join(facts['vector_units'])}), oneDNN "
             f"{facts['onednn']}, {args.threads} threads; multiply-adds {speed['peak_f32_gflops']:.0f} GFLOP/s in f32 and "
             f"{speed['peak_bf16_gflops']:.0f} in bf16, memory {speed['memory_gb_per_second']:.1f} GB/s read and written")
    sections = types.SimpleNamespace(
        step=step(args), phases_f32=phases(args, "f32"), phases_bf16=phases(args, "bf16"), f32=grouped(args, "f32"),
        bf16=grouped(args, "bf16"), total=experts(args, 2048, lambda count: 8192 // count),
        same=experts(args, 8192, lambda count: 256), balanced=banks(args, "balanced"), zipf=banks(args, "zipf"),
        generate=generate(args))
    text = (here / "cpu_template.md").read_text().format(machine=shown, rounds=args.rounds, s=sections)
    pathlib.Path(args.out).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
