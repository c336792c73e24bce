"""Carries out the runs of the quality report: in order, several beside each other, within a time, and each once."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time

import quality_recipe
from quality_rows import SCALES, jobs, settings

LONGEST = 86400                 # Seconds that one command may take; the system's own limit is not far above.
GRACE = 15                      # Seconds that a run may take beyond the time given, before it is ended.


class Failure(Exception):
    pass


class Node:
    """A job under a seed, with its key and the nodes it needs."""

    def __init__(self, job, seed, key, parents):
        self.job, self.seed, self.key, self.parents = job, seed, key, parents
        self.children, self.state = [], "waiting"

    @property
    def name(self):
        return f"{self.job.name}-{self.seed}"


def output(command):
    """What a command prints; nothing where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine(device):
    """What computes, in words."""
    if device == "cuda":
        names = output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]).splitlines()
        return names[0] if names else "a GPU"
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{model}, {os.cpu_count()} cores"


class Context:
    """What all runs share: the command, the texts, the folders and what the machine is."""

    def __init__(self, args):
        self.args, self.scale = args, SCALES[args.scale]
        self.jobs = jobs(self.scale)
        self.work = pathlib.Path(args.work).resolve() / args.scale
        self.work.mkdir(parents=True, exist_ok=True)
        self.apus = os.path.abspath(args.apus)
        self.recipes = {"text": args.recipe, "vision": args.vision_recipe}
        self.base = {name: quality_recipe.read(path) for name, path in self.recipes.items() if os.path.exists(path)}
        self.data = {"text": os.path.abspath(args.data)}
        self.held_out = {"text": self.data["text"]}
        if os.path.isfile(args.data):
            # `apus eval` reads a whole file, so the part that training leaves out becomes one of its own.
            text = pathlib.Path(args.data).read_bytes()
            self.held_out["text"] = str(self.work / "held-out.txt")
            pathlib.Path(self.held_out["text"]).write_bytes(text[-(len(text) // 20):])
        images = pathlib.Path(args.images).resolve()
        if "vision" in self.base and (images / "digits-train.images").exists():
            self.data["vision"] = str(images / "digits-train.images")
            self.held_out["vision"] = str(images / "digits-test.images")
        self.digests = {name: quality_recipe.data_digest(path) for name, path in self.data.items()}
        self.version, self.machine = output([self.apus, "--version"]), machine(args.device)

    def scale_of(self, job):
        """A run's scale by name: images have one of their own."""
        return "vision" if job.base == "vision" else self.scale.name

    def settings(self, job):
        return settings(self.scale, job)

    def recipe(self, job):
        """The recipe that a job is trained by; empty for one that is only measured."""
        return {} if job.evaluates else quality_recipe.changed(self.base[job.base], self.settings(job))

    def node(self, name, seed, known):
        """The node of a job and a seed, with all that it needs; `known` holds each once."""
        name, _, shift = name.partition("+")
        seed += int(shift or 0)
        if (name, seed) not in known:
            job = self.jobs[name]
            parents = [self.node(parent, seed, known) for parent in job.parents]
            recipe = self.recipe(job)
            scale = self.scale_of(job) + ("-smoke" if self.scale.name == "smoke" and job.base == "vision" else "")
            key = quality_recipe.key(
                recipe, data=self.digests[job.base], seed=seed + job.seed_shift, scale=scale,
                parents=[parent.key for parent in parents], surgery=list(job.surgery), teacher=job.teacher)
            known[name, seed] = Node(job, seed, key, parents)
        return known[name, seed]

    def folder(self, node):
        return self.work / node.name

    def is_there(self, node):
        """Whether the node's checkpoint is in the work folder, whole."""
        mark = self.folder(node) / "quality.key"
        return mark.exists() and mark.read_text() == node.key


class Runner:
    """Runs what is missing of some jobs and seeds."""

    def __init__(self, context, store, begin):
        self.context, self.store, self.begin = context, store, begin
        self.changed = threading.Condition()
        self.measured, self.nodes, self.pace = {}, [], []
        self.known = {}         # Each node once, however many rows name it.

    def add(self, names, seeds):
        """Plans jobs under seeds, parents first; parents whose result is known run again where their checkpoint is gone."""
        def need(node):
            if node in self.nodes:
                return
            for parent in node.parents:
                if not self.context.is_there(parent):
                    need(parent)
                parent.children.append(node)
            self.nodes.append(node)

        for name in names:
            if self.context.jobs[name].base not in self.context.digests:
                print(f"{name}: left out, for {self.context.recipes['vision']} or the images are missing", file=sys.stderr)
                continue
            for seed in seeds:
                node = self.context.node(name, seed, self.known)
                if not self.store.finished(node.key):
                    need(node)

    def estimate(self, node):
        """Seconds that a node will take."""
        if node.job.name in self.measured:
            return max(self.measured[node.job.name]) * 1.1
        scale = self.context.scale
        steps = node.job.settings.get("training.steps", scale.steps)
        if node.job.evaluates:
            return 0.3 * scale.guess
        if self.pace and node.job.base == "text":
            return 10 + 1.5 * steps * statistics.median(self.pace)
        return (0.3 + 0.7 * steps / scale.steps) * scale.guess * (1 + self.context.args.at_once) / 2

    def chain(self, node):
        """Seconds until the soonest result that running this node can give."""
        tails = [self.chain(child) for child in node.children if child.state == "waiting"]
        return self.estimate(node) + (min(tails, default=0) if self.store.finished(node.key) else 0)

    def elapsed(self):
        return time.monotonic() - self.begin

    def is_ready(self, parent):
        """Whether a parent's checkpoint can be used: it is there, and will not be made again."""
        return self.context.is_there(parent) and (parent not in self.nodes or parent.state == "done")

    def next(self):
        """The first node that can run and end in time; fails those whose parents did."""
        for node in self.nodes:
            if node.state != "waiting":
                continue
            if any(parent.state in ("failed", "late") for parent in node.parents):
                node.state = "late"
            elif all(self.is_ready(parent) for parent in node.parents):
                if self.elapsed() + self.chain(node) <= self.context.args.minutes * 60:
                    return node
        return None

    def go(self):
        """Runs until nothing is left that can run; returns how many nodes did not."""
        with self.changed:
            while True:
                running = [node for node in self.nodes if node.state == "running"]
                node = self.next() if len(running) < self.context.args.at_once else None
                if node:
                    node.state = "running"
                    threading.Thread(target=self.run, args=(node,), daemon=True).start()
                elif running:
                    self.changed.wait()
                else:
                    break
        left = [node.name for node in self.nodes if node.state in ("waiting", "late")]
        failed = [node.name for node in self.nodes if node.state == "failed"]
        print(f"{len(self.nodes) - len(left) - len(failed)} runs done, {len(failed)} failed, {len(left)} left"
              + (f" ({', '.join(left[:12])}{', ...' if len(left) > 12 else ''})" if left else ""), file=sys.stderr)
        return len(left) + len(failed)

    def run(self, node):
        begin = time.monotonic()
        entry = self.identity(node)
        try:
            entry |= self.carry_out(node)
            state = "done"
        except subprocess.TimeoutExpired:
            state, entry = "late", None
        except Exception as failure:    # Whatever it is: a thread that ended without a word would be waited for.
            entry["error"], state = f"{type(failure).__name__}: {failure}"[:500], "failed"
        seconds = time.monotonic() - begin
        with self.changed:
            if entry:
                entry["seconds"] = round(seconds, 2)
                self.store.add(entry)
            node.state = state
            if state == "done":
                self.measured.setdefault(node.job.name, []).append(seconds)
                if "steps" in entry and node.job.base == "text" and not node.job.teacher and entry["steps"] > 1:
                    self.pace.append(seconds / entry["steps"])
            self.clear(node)
            told = f"loss {entry['loss']:.4f}" if state == "done" else entry["error"] if entry else "stopped, out of time"
            print(f"{self.elapsed():6.0f} s  {node.name}: {told}, {seconds:.1f} s", file=sys.stderr, flush=True)
            self.changed.notify_all()

    def clear(self, node):
        """Removes the checkpoints that nothing planned needs any more."""
        for each in [node, *node.parents]:
            if each.state in ("done", "failed", "late", "waiting") and not any(
                    child.state in ("waiting", "running", "late") for child in each.children):
                if not self.context.args.keep and (each is node or each.children):
                    shutil.rmtree(self.context.folder(each), ignore_errors=True)

    def identity(self, node):
        job, context = node.job, self.context
        return {"key": node.key, "job": job.name, "seed": node.seed, "scale": context.scale_of(job), "pool": job.pool,
                "machine": context.machine, "device": context.args.device, "beside": context.args.at_once,
                "version": context.version, "commit": context.args.commit,
                "recipe": quality_recipe.digest(quality_recipe.without_paths(context.recipe(job))),
                "parents": [parent.key for parent in node.parents]}

    def call(self, *command):
        """A command's output. Raises the last line that it printed of what went wrong."""
        left = min(LONGEST, max(1, self.context.args.minutes * 60 - self.elapsed() + GRACE))
        done = subprocess.run([self.context.apus, *map(str, command)], capture_output=True, text=True, timeout=left,
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
            line = next((line for line in lines if line.startswith("error")), lines[-1])
            raise Failure(f"apus {command[0]} ended with {done.returncode}: {line}")
        return done.stdout

    def carry_out(self, node):
        """Makes the node's model and measures it."""
        job, context = node.job, self.context
        device = ("--device", context.args.device)
        folder, model = context.folder(node), context.work / f"{node.name}-model"
        parents = [context.folder(parent) for parent in node.parents]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(model, ignore_errors=True)
        try:
            if job.surgery:
                words = [word.format(*parents, data=context.held_out[job.base], seed=node.seed) for word in job.surgery]
                self.call(*words, "--out", model, *(device if words[0] == "prune" else ()))
            if job.evaluates:
                return self.evaluation(job, model if job.surgery else parents[0]) | self.sizes(
                    model if job.surgery else parents[0])
            settings = context.settings(job) | {"seed": node.seed + job.seed_shift, "data.path": context.data[job.base]}
            if job.surgery:
                settings["training.start"] = model
            elif parents and not job.teacher:
                settings["training.start"] = parents[0]
            verb = ("distill", parents[0]) if job.teacher else ("train",)
            self.call(*verb, context.recipes[job.base], *quality_recipe.options(settings), *device, "--out", folder)
            result = self.sizes(folder) | self.metrics(job, folder)
            if job.base == "vision":
                result |= self.evaluation(job, folder)
            (folder / "quality.key").write_text(node.key)
            return result
        finally:
            shutil.rmtree(model, ignore_errors=True)

    def evaluation(self, job, model):
        context = self.context
        limit = ()
        if job.base == "text" and context.held_out["text"] != context.data["text"]:
            limit = ("--max-tokens", 65536 if context.scale.name == "cpu" else 1024)
        found = json.loads(self.call("eval", model, "--data", context.held_out[job.base], *limit, "--json",
                                     "--device", context.args.device))
        if job.base == "vision":
            return {"loss": found["nats_per_image"], "accuracy": found["accuracy"]}
        return {"loss": found["nats_per_token"]}

    def sizes(self, folder):
        found = json.loads(self.call("inspect", folder, "--json"))
        return {"parameters": found["parameters"], "active_parameters": found["active_parameters"]}

    def metrics(self, job, folder):
        """What the run's own lines say: its last held-out loss, and the later half's times and dropped share."""
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        recipe = self.context.recipe(job)
        losses = [line["held_out_loss"] for line in lines if line.get("held_out_loss") is not None]
        if not losses or losses[-1] != losses[-1]:
            raise Failure("the run has no held-out loss that is a number")
        later = lines[len(lines) // 2:]
        result = {"loss": losses[-1], "train_loss": statistics.fmean(line["loss"] for line in lines[-50:]),
                  "steps": len(lines),
                  "step_ms": round(1e3 * statistics.median(line["step_seconds"] for line in later), 3)}
        if job.base == "text":
            result["tokens"] = len(lines) * recipe["training"]["batch"] * recipe["data"]["sequence_length"]
        else:
            result["images"] = len(lines) * recipe["training"]["batch"]
        dropped = [line["dropped_fraction"] for line in lines if line.get("dropped_fraction") is not None]
        if dropped and max(dropped) > 0:
            result["dropped"] = round(statistics.fmean(dropped), 5)
        return result
