"""Times and bytes that the papers' claims rest on, each by a command of `apus` that a reader can give.

Everything runs alone on the machine; programs that are compared take turns.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import quality_recipe
from quality_rows import SCALES, jobs, settings, small
from quality_store import replace

# On a GPU the scale of the rows; on a CPU a width of 512, which the target for routers names.
SIZES = {"cuda": dataclasses.replace(SCALES["gpu"], steps=60),
         "cpu": small("numbers", layers=2, width=512, experts=16, steps=12, sequence=128, batch=8, guess=20)}
# The layer of OLMoE, 32768 tokens of it at once.
OLMOE = {"model.layers": 1, "model.width": 2048, "model.heads": 16, "model.key_value_heads": 16,
         "model.experts.count": 64, "model.experts.choices": 8, "model.experts.width": 1024}
ROUTER = "model.experts.router."
ROUTERS = {
    "softmax, then top-k": {},
    "top-k, then softmax": {ROUTER + "scoring": "top-k-softmax", ROUTER + "renormalize": False},
    "sigmoid and bias": {ROUTER + "scoring": "sigmoid", ROUTER + "bias_rate": 0.001},
    "groups": {ROUTER + "groups": {"count": 4, "chosen": 2, "score": "best-two"}},
    "two levels": {ROUTER + "nodes": 4},
    "cosine": {ROUTER + "cosine": {"width": 256, "temperature": 0.5, "floor": 0.01}},
    "jitter": {ROUTER + "jitter": 0.01},
    "Gumbel noise": {ROUTER + "gumbel": True},
    "capacity, random order": {"model.experts.policy": {"capacity": 1.25, "order": "random"}},
    "capacity, by importance": {"model.experts.policy": {"capacity": 1.25, "order": "importance"}},
}
# The ops of a layer in a trace; the first two are the router's.
ROUTING, LAYER = {"router", "router_jitter"}, {"router", "router_jitter", "arrange", "dispatch", "experts", "combine"}
RESIDUAL = ("moe", "residual", "top-1")


class Bench:
    def __init__(self, args):
        self.args, self.size = args, SIZES[args.device]
        self.apus, self.work = os.path.abspath(args.apus), pathlib.Path(args.work).resolve() / "numbers"
        self.jobs = jobs(self.size)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        steps = self.size.steps
        self.common = {"data.path": os.path.abspath(args.data), "training.evaluate_every": steps,
                       "training.steps": steps, "training.schedule.warmup_steps": max(1, steps // 10)}

    def train(self, name, changes, *, teacher=None, steps=None, trace=False, ranks=1, keep=False):
        """Trains, and returns the lines of metrics.jsonl and the trace, if one was asked for."""
        out = self.work / name
        every = {"training.evaluate_every": steps, "training.steps": steps} if steps else {}
        command = [self.apus, *(("distill", teacher) if teacher else ("train",)), self.args.recipe,
                   *quality_recipe.options(self.common | changes | every), "--device", self.args.device, "--out", out]
        if trace:
            command += ["--trace", self.work / "trace.json"]
        if ranks > 1:
            command = ["mpirun", "-n", ranks, "--oversubscribe", *command]
        environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            found = (done.stderr or done.stdout).strip().splitlines() or [""]
            raise RuntimeError(next((line for line in found if line.startswith("error")), found[-1]))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        if not keep:
            shutil.rmtree(out)
        return lines, json.loads((self.work / "trace.json").read_text()) if trace else []

    def settings(self, name):
        return settings(self.size, self.jobs[name])

    def residual(self):
        """ms of a step of each form, alone, in turn."""
        times = {name: [] for name in RESIDUAL}
        for index in range(self.args.rounds):
            for name in RESIDUAL if index % 2 == 0 else reversed(RESIDUAL):
                lines, _ = self.train(name, self.settings(name))
                times[name].append(milliseconds(lines))
        return times

    def bytes(self):
        """Bytes a rank sends in all-to-all calls in a step on two ranks, each with half of the experts."""
        found = {}
        for name in RESIDUAL:
            lines, _ = self.train(name, self.settings(name) | {"layout.expert": 2, "layout.data": 2}, steps=8, ranks=2)
            found[name] = statistics.fmean(
                sum(row["bytes"] for kind, row in line["collectives"].items() if kind.endswith("all-to-all"))
                for line in lines[:-1])
        return found

    def routers(self):
        """Each router's part of the time of the layer's ops, forward and backward."""
        shape = dict(self.size.settings) | (OLMOE if self.args.device == "cuda" else {})
        found = {}
        for name, changes in ROUTERS.items():
            try:
                _, trace = self.train("router", shape | changes, steps=6, trace=True)
            except RuntimeError as error:
                found[name] = {"error": str(error)}
                continue
            spent = {}
            for event in trace:
                if event.get("ph") == "X" and event["cat"] in ("op", "adjoint"):
                    spent[event["name"]] = spent.get(event["name"], 0) + event["dur"]
            layer = sum(time for op, time in spent.items() if op in LAYER)
            found[name] = {"share": sum(time for op, time in spent.items() if op in ROUTING) / layer,
                           "layer_ms": layer / 1e3 / sum(event.get("cat") == "step" for event in trace)}
        return found

    def distillation(self):
        """ms of a student's step alone, of the teacher's forward, and of a step of distillation, in turn."""
        found = {"student": [], "teacher_forward": [], "distilled": []}
        for _ in range(self.args.rounds):
            lines, _ = self.train("student", self.settings("student"))
            found["student"].append(milliseconds(lines))
            # The same forward as in the teacher's own training, which its trace times.
            _, trace = self.train("teacher", self.settings("pr-moe"), trace=True, keep=True)
            forward = [event["dur"] / 1e3 for event in trace
                       if event.get("cat") == "phase" and event["name"] == "forward"]
            found["teacher_forward"].append(statistics.median(forward))
            lines, _ = self.train("distilled", self.settings("student-full"), teacher=self.work / "teacher")
            found["distilled"].append(milliseconds(lines))
            shutil.rmtree(self.work / "teacher")
        return found


def milliseconds(lines):
    """The median step of the later half."""
    return 1e3 * statistics.median(line["step_seconds"] for line in lines[len(lines) // 2:])


PARTS = ("residual", "bytes", "routers", "distillation")


def measure(args, machine, version):
    """Measures the parts asked for, and stores each as soon as it is there."""
    path = pathlib.Path(args.numbers)
    bench = Bench(args)
    # Bytes are the same on any device, and two ranks with GPUs need two of them.
    for part in args.parts or [part for part in PARTS if part != "bytes" or args.device == "cpu"]:
        try:
            found = getattr(bench, part)()
        except (RuntimeError, OSError) as error:
            print(f"{part}: failed: {error}", file=sys.stderr, flush=True)
            continue
        figures = {"machine": machine, "version": version, "commit": args.commit, "found": found}
        known = json.loads(path.read_text()) if path.exists() else {}
        known.setdefault(args.device, {})[part] = figures
        replace(path, json.dumps(known, indent=1) + "\n")
        print(f"{part}: {json.dumps(figures['found'])}", file=sys.stderr, flush=True)


def section(path):
    """The numbers as a part of the report."""
    known = json.loads(path.read_text()) if path.exists() else {}
    parts = ["## Numbers", "Taken alone on the machine by `python3 Benchmarks/quality.py numbers`; several are medians of rounds in "
             "which the compared take turns. On a GPU the model is the rows' own; on a CPU it has two layers, width 512, 16 experts "
             "of 512, and 1024 bytes a step."]
    lines = []
    for device in ("cuda", "cpu"):
        found = {part: figures["found"] for part, figures in known.get(device, {}).items()}
        machine = next((figures["machine"] for figures in known.get(device, {}).values()), "")
        if "residual" in found:
            times = {name: statistics.median(rounds) for name, rounds in found["residual"].items()}
            lines.append(["Residual against top-2, a step alone", machine,
                          f"{times['residual']:.2f} ms against {times['moe']:.2f} ms (top-1: {times['top-1']:.2f} ms)",
                          "at most 1.00", ratio(times["residual"], times["moe"], 1.0)])
        if "bytes" in found:
            sent = found["bytes"]
            lines.append(["Residual against top-2, bytes of all-to-all on two ranks", machine,
                          f"{sent['residual'] / 1e6:.2f} MB against {sent['moe'] / 1e6:.2f} MB (top-1: {sent['top-1'] / 1e6:.2f})",
                          "about 0.50", ratio(sent["residual"], sent["moe"], 0.55)])
        if "distillation" in found:
            times = {name: statistics.median(rounds) for name, rounds in found["distillation"].items()}
            expected = times["student"] + times["teacher_forward"]
            lines.append(["A step of distillation against the student's step and the teacher's forward", machine,
                          f"{times['distilled']:.2f} ms against {times['student']:.2f} + {times['teacher_forward']:.2f} ms",
                          "below 1.15", ratio(times["distilled"], expected, 1.15)])
    if lines:
        parts.append(table(["what", "machine", "found", "target", "ratio"], lines))
    for device in ("cuda", "cpu"):
        figures = known.get(device, {}).get("routers")
        if figures:
            shape = "OLMoE's layer, 32 768 tokens, bf16" if device == "cuda" else "width 512, 16 experts of 512, 1024 tokens, f32"
            parts.append(f"Each router's part of its layer's time, forward and backward, from a trace; target: below 10 %. "
                         f"{figures['machine']}; {shape}:")
            parts.append(table(["router", "part of the layer", "layer"], [
                [name, f"failed: {value['error']}" if "error" in value else f"{100 * value['share']:.1f} %",
                 "" if "error" in value else f"{value['layer_ms']:.2f} ms"] for name, value in figures["found"].items()]))
    return "\n\n".join(parts) if len(parts) > 2 else parts[0] + "\n\nNot measured yet."


def ratio(ours, reference, most):
    value = ours / reference
    return f"{value:.2f}" + ("" if value <= most else ", **missed**")


def table(head, lines):
    lines = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
