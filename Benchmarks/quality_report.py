"""Makes Benchmarks/reports/quality.md of the finished runs in quality.json."""

import pathlib
import statistics

import quality_numbers
import quality_recipe
import quality_statistics
from quality_numbers import table
from quality_rows import SCALES, jobs, rows, settings
from quality_store import deviations

root = pathlib.Path(__file__).resolve().parent.parent
BASES = {"text": "Recipes/quality.yaml", "vision": "Recipes/vision.yaml"}
MARKS = {"gpu": "", "cpu": "small, bytes, on a CPU", "vision": "small, 8 x 8 images, on a CPU"}

HEAD = """# Quality: what the papers compare, trained

Small models that differ in one thing, trained on real text, and what the papers say of that thing. Made by
[Benchmarks/quality.py](../quality.py), which trains what is missing from [quality.json](quality.json) and writes this page:

```
python3 Benchmarks/quality.py run --device cuda --data linux8k --at-once 2
python3 Benchmarks/quality.py run --scale cpu
python3 Benchmarks/quality.py report
```

Every run is the base recipe with the options shown: [Recipes/quality.yaml](../../Recipes/quality.yaml) for text (its head says
how the text is made), [Recipes/vision.yaml](../../Recipes/vision.yaml) for images. Nothing else is tuned: one learning rate,
one schedule and one balance coefficient for both sides of a comparison. These models are one to three orders of
magnitude smaller than the papers', so a row tells whether a claim is already seen at this size, not whether it holds at theirs.

The loss is that of the held-out part, in nats per token (per byte at the small scale, per image for images). A difference is ours
less the reference; beside it is half of its 95 % interval, from Student's t and the deviation over seeds pooled over all
configurations of a scale, because two or three seeds of one configuration say little about their own spread. It takes that
spread to be the same in all of them. An interval that holds 0 reads "not shown at this size". Of this many intervals about one
in twenty misses by chance.
"""


def count(value):
    """A number of parameters or tokens, short."""
    if value is None:
        return ""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return str(value)


class Results:
    """The runs that belong to the rows as they are now."""

    def __init__(self, store):
        self.by_key = store.entries
        self.runs, self.failures, self.stale = {}, [], 0
        tables = {name: jobs(scale) for name, scale in SCALES.items()}
        tables["vision"] = tables["gpu"]
        bases = {name: quality_recipe.read(root / path) for name, path in BASES.items() if (root / path).exists()}
        for entry in store.entries.values():
            job = tables.get(entry["scale"], {}).get(entry["job"])
            if job is None or not self.is_current(entry, job, bases):
                self.stale += 1
            elif "error" in entry:
                self.failures.append(entry)
            else:
                self.runs.setdefault((entry["scale"], entry["job"]), {})[entry["seed"]] = entry
        self.deviations = deviations(run for by_seed in self.runs.values() for run in by_seed.values())

    def is_current(self, entry, job, bases):
        """Whether a run's recipe is still the one that the table of rows makes."""
        if job.evaluates or "recipe" not in entry or job.base not in bases:
            return True
        scale = SCALES["gpu" if entry["scale"] == "vision" else entry["scale"]]
        recipe = quality_recipe.changed(bases[job.base], settings(scale, job))
        return quality_recipe.digest(quality_recipe.without_paths(recipe)) == entry["recipe"]

    def of(self, scale, name):
        return list(self.runs.get((scale, name), {}).values())

    def losses(self, scale, name):
        return [run["loss"] for run in self.of(scale, name)]

    def read(self, run, unit):
        """Tokens or images that a model has met: in this run, and in those that it went on from."""
        own = run.get(unit)
        if run["job"].startswith("student"):
            return own
        before = [self.by_key.get(key) for key in run["parents"]]
        # What is pruned by the router's change has one parent, and another to compare with.
        before = before[:1] if "pruned" in run["pool"] else before
        return (own or 0) + sum(self.read(parent, unit) for parent in before if parent)

    def scales(self, row):
        """The scales that have both sides of a comparison of the row, the largest first."""
        candidates = ["vision"] if row.name.startswith("vision") else ["gpu", "cpu"]
        return [scale for scale in candidates if any(
            self.of(scale, c.ours) and self.of(scale, c.reference)
            for other in rows(SCALES["gpu" if scale == "vision" else scale]) if other.name == row.name
            for c in other.comparisons)]


def comparison(results, scale, sides):
    """A comparison as cells: who, difference, interval, verdict, seeds; None where a side is missing."""
    ours, reference = results.losses(scale, sides.ours), results.losses(scale, sides.reference)
    if not ours or not reference:
        return None
    pool = results.of(scale, sides.ours)[0]["pool"]
    spread = results.deviations.get((scale, pool), (None, 0))
    value, _, half = quality_statistics.difference(ours, reference, *spread)
    verdict = quality_statistics.verdict(value, half, sides.claim)
    claimed = {"lower": "lower", "higher": "higher", "equal": "as good"}[sides.claim]
    return [f"{sides.ours} against {sides.reference}", claimed, f"{value:+.4f}", f"± {half:.4f}" if half else "",
            f"{len(ours)}, {len(reference)}", f"**{verdict}**"]


def changes(job):
    """What a job is, as options and what it begins with."""
    text = " ".join(f"`{option}`" for option in quality_recipe.options(job.settings) if option != "--set")
    if job.surgery:
        words = " ".join(word for word in job.surgery if word not in ("{0}", "{1}", "--base"))
        text = f"`apus {words}` of {', '.join(job.parents)}; ".replace(" --seed {seed}", "").replace(
            "{data}", "HELD-OUT") + text
    elif job.teacher:
        text = f"teacher {job.parents[0]}; " + text
    elif job.parents:
        text = ("" if job.evaluates else "goes on from ") + f"{job.parents[0]}; " + text
    return text.rstrip("; ") or "as it is"


def line(results, scale, name, known):
    """A configuration's line in its row."""
    runs = results.of(scale, name)
    job, first = known[name], runs[0]
    losses = [run["loss"] for run in runs]
    unit = "images" if job.base == "vision" else "tokens"
    times = [run["step_ms"] for run in runs if "step_ms" in run]
    beside = max(run["beside"] for run in runs)
    dropped = [run["dropped"] for run in runs if "dropped" in run]
    accuracy = [run["accuracy"] for run in runs if "accuracy" in run]
    return [name, f"{statistics.fmean(losses):.4f}" + (f" ({100 * statistics.fmean(accuracy):.1f} %)" if accuracy else ""),
            len(runs), count(results.read(first, unit)), count(first["parameters"]), count(first["active_parameters"]),
            f"{statistics.median(times):.1f}" + ("*" if beside > 1 else "") if times else "",
            f"{100 * statistics.fmean(dropped):.1f} %" if dropped else "", changes(job)]


def section(results, row):
    """A row: the claim, and for each scale its configurations and comparisons."""
    base = BASES["vision" if row.name.startswith("vision") else "text"]
    parts = [f"## {row.title}", f"Claim: {row.claim} ({row.source}). Base: [{base}](../../{base}). {row.note}".rstrip()]
    for scale in results.scales(row):
        size = SCALES["gpu" if scale == "vision" else scale]
        known = jobs(size)
        (now,) = [other for other in rows(size) if other.name == row.name]
        names = list(now.jobs)
        if row.name.endswith("pruning"):
            prefix = "vision-" if row.name.startswith("vision") else ""
            names = [name for name in known if name.startswith(prefix + "all-")] + names
        if MARKS[scale]:
            parts.append(f"At a size that is {MARKS[scale]}:")
        head = ["", "held-out loss", "seeds", "images read" if scale == "vision" else "tokens read", "parameters", "active",
                "ms/step", "dropped", "what it is"]
        parts.append(table(head, [line(results, scale, name, known) for name in names if results.of(scale, name)]))
        cells = [cell for sides in now.comparisons if (cell := comparison(results, scale, sides))]
        parts.append(table(["", "the paper: its loss is", "difference", "95 %", "seeds", "result"], cells))
    if len(parts) == 2:
        parts.append("Not run yet.")
    return "\n\n".join(parts)


def summary(results):
    """All comparisons, one line each, at the largest scale that has them."""
    lines = []
    for row in rows(SCALES["gpu"]):
        scales = results.scales(row)
        anchor = "#" + "".join(letter for letter in row.title.lower() if letter.isalnum() or letter in " -").replace(" ", "-")
        if not scales:
            lines.append([f"[{row.title}]({anchor})", "", "", "", "", "", "not run yet"])
            continue
        size = SCALES["gpu" if scales[0] == "vision" else scales[0]]
        (now,) = [other for other in rows(size) if other.name == row.name]
        for sides in now.comparisons:
            if cell := comparison(results, scales[0], sides):
                first = results.of(scales[0], sides.ours)[0]
                read = results.read(first, "images" if scales[0] == "vision" else "tokens")
                lines.append([f"[{row.title}]({anchor})", *cell[:1], *cell[2:5], count(read),
                              cell[5] + (f" ({MARKS[scales[0]]})" if MARKS[scales[0]] else "")])
    return table(["row", "ours against reference", "difference", "95 %", "seeds", "tokens or images read", "result"], lines)


def scales(results):
    """What was run at each scale, and how far seeds lie apart."""
    lines = []
    for scale in ("gpu", "cpu", "vision"):
        runs = [run for (name, _), by_seed in results.runs.items() if name == scale for run in by_seed.values()]
        if not runs:
            continue
        machines = sorted({f"{run['machine']}, apus {run['version']} {run['commit']}".rstrip() for run in runs})
        for pool in sorted({run["pool"] for run in runs}):
            deviation, freedom = results.deviations[scale, pool]
            trained = [run for run in runs if run["pool"] == pool]
            seconds = [run["seconds"] for run in trained]
            lines.append([scale, pool, len(trained), f"{statistics.median(seconds):.0f} s, {max(seconds):.0f} s at most",
                          f"{deviation:.4f} of {freedom}" if deviation is not None else "", "; ".join(machines)])
    text = table(["scale", "what", "runs", "time of a run", "deviation over seeds, degrees of freedom", "machine"], lines)
    if any(name == "cpu" for name, _ in results.runs):
        changed = quality_recipe.options(SCALES["cpu"].settings)[1::2]
        text += "\n\nThe scale cpu is the base recipe, on bytes of the quickstart's text, with " + " ".join(
            f"`{option}`" for option in changed) + ", and widths in a row's options in proportion."
    return text


def write(store, out):
    results = Results(store)
    parts = [HEAD, "## In short", summary(results), "## Sizes", scales(results),
             "A star beside a time means that several runs shared the GPU: compare such times with each other only."]
    parts += [section(results, row) for row in rows(SCALES["gpu"])]
    parts.append(quality_numbers.section(store.path.with_name("quality-numbers.json")))
    if results.failures:
        parts += ["## Failed", "\n".join(f"- {run['job']}, seed {run['seed']}, {run['scale']}: {run['error']}"
                                         for run in results.failures)]
    out.write_text("\n\n".join(part.strip() for part in parts if part) + "\n")
    print(f"{out}: {sum(map(len, results.runs.values()))} runs" + (
        f", {results.stale} left out, whose recipe has changed" if results.stale else ""))
