"""Trains small models that differ in one thing, as the rows of Benchmarks/reports/quality.md say, and writes that report.

Every finished run is stored by the hash of its recipe, its text, its seed and what it began with; a run that is stored is
not run again, so the command may be ended and given again, on this machine or another.

Usage:
    python3 Benchmarks/quality.py rows
    python3 Benchmarks/quality.py run --device cuda --data linux8k --minutes 9 --at-once 2 --work runs/quality
    python3 Benchmarks/quality.py run --scale cpu --rows dense,residual --seeds 1,2
    python3 Benchmarks/quality.py run --scale smoke --results /tmp/smoke.json
    python3 Benchmarks/quality.py numbers --device cuda --data linux8k
    python3 Benchmarks/quality.py merge quality-of-the-gpu.json
    python3 Benchmarks/quality.py report
"""

import argparse
import pathlib
import sys
import time

import quality_numbers
import quality_recipe
import quality_statistics
from quality_rows import SCALES, jobs, rows
from quality_run import Context, Runner, machine, output
from quality_store import Store, deviations

here = pathlib.Path(__file__).resolve().parent
root = here.parent
RESULTS = here / "reports/quality.json"


def list_rows(args):
    scale = SCALES[args.scale]
    table = jobs(scale)
    for row in rows(scale):
        print(f"{row.name}: {row.title}")
        for name in row.jobs:
            job = table[name]
            after = f" after {', '.join(job.parents)}" if job.parents else ""
            print(f"    {name}{after}  {' '.join(quality_recipe.options(job.settings))}")


def is_close(row, store, context, seeds):
    """Whether a difference of the row is below three of its standard errors."""
    known = deviations(store.entries.values())
    for comparison in row.comparisons:
        job = context.jobs[comparison.ours]
        if job.base not in context.digests:
            continue
        entries = [[store.finished(context.node(name, seed, {}).key) for seed in seeds]
                   for name in (comparison.ours, comparison.reference)]
        losses = [[entry["loss"] for entry in side if entry] for side in entries]
        if not all(losses):
            continue
        spread = known.get((context.scale_of(job), job.pool), (None, 0))
        value, error, _ = quality_statistics.difference(*losses, *spread)
        if quality_statistics.is_close(value, error):
            return True
    return False


def run(args):
    if args.device is None:
        args.device = "cuda" if args.scale == "gpu" else "cpu"
    if args.scale is None:
        args.scale = "gpu" if args.device == "cuda" else "cpu"
    context, store = Context(args), Store(args.results)
    chosen = pick(args.rows, rows(context.scale))
    names = list(dict.fromkeys(name for row in chosen for name in row.jobs + extra(row, context.jobs)))
    begin = time.monotonic()
    runner = Runner(context, store, begin)
    for row in chosen:
        runner.add(row.jobs + extra(row, context.jobs), args.seeds)
    left = runner.go()
    if args.third and not left:
        runner = Runner(context, store, begin)
        for row in chosen:
            if is_close(row, store, context, args.seeds):
                runner.add(row.jobs, [max(args.seeds) + 1])
        left = runner.go()
    failed = sum("error" in entry for entry in store.entries.values() if entry["job"] in names)
    return 1 if failed else 0


def extra(row, table):
    """What a row shows besides its comparisons: the model that a pruning curve begins with."""
    return [name for name in table if row.name.endswith("pruning") and name.startswith(
        "vision-all-" if row.name.startswith("vision-") else "all-")]


def pick(names, all_rows):
    if not names:
        return all_rows
    known = {row.name: row for row in all_rows}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"quality: no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def report(args):
    from quality_report import write
    write(Store(args.results), pathlib.Path(args.out))


def numbers(args):
    quality_numbers.measure(args, machine(args.device), output([args.apus, "--version"]))


def merge(args):
    print(f"{Store(args.results).merge(args.file)} results read from {args.file}")


def self_check(_):
    quality_statistics.self_check()
    from quality_check import check
    check(root)
    print("quality: the statistics, the keys and the rows are as they should be")


def commit():
    return output(["git", "-C", str(root), "rev-parse", "--short", "HEAD"])


def words(text):
    return [word for word in text.split(",") if word]


def integers(text):
    return [int(word) for word in words(text)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("rows", help="what there is")
    one.add_argument("--scale", choices=SCALES, default="gpu")
    two = commands.add_parser("run", help="train and measure what is missing")
    five = commands.add_parser("numbers", help="times and bytes, with the machine to themselves")
    for each in (two, five):
        each.add_argument("--apus", default=str(root / ".build/release/apus"))
        each.add_argument("--data", default=str(root / ".apus/text/quickstart.txt"), help="prepared data, or a text file")
        each.add_argument("--recipe", default=str(root / "Recipes/quality.yaml"))
        each.add_argument("--work", default=str(root / "runs/quality"), help="checkpoints while something needs them")
        each.add_argument("--commit", default=commit(), help="what apus was built of, for the record")
    two.add_argument("--device", choices=("cuda", "cpu"), help="by default what the scale is for")
    two.add_argument("--scale", choices=SCALES, help="by default gpu with --device cuda, else cpu")
    two.add_argument("--images", default=str(root / ".apus/images"), help="what Scripts/fetch-images.sh wrote")
    two.add_argument("--vision-recipe", default=str(root / "Recipes/vision.yaml"))
    two.add_argument("--rows", type=words, help="some rows, by name")
    two.add_argument("--seeds", type=integers, default=[1, 2])
    two.add_argument("--third", action="store_true", help="one seed more where a difference is small against its error")
    two.add_argument("--minutes", type=float, default=1440, help="start nothing that would end later")
    two.add_argument("--at-once", type=int, default=1, help="runs beside each other")
    two.add_argument("--keep", action="store_true", help="leave every checkpoint")
    five.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    five.add_argument("--parts", type=words, help=f"some of {', '.join(quality_numbers.PARTS)}")
    five.add_argument("--rounds", type=int, default=3, help="how often each has its turn")
    five.add_argument("--numbers", default=str(here / "reports/quality-numbers.json"))
    three = commands.add_parser("merge", help="take over the results of another machine")
    three.add_argument("file")
    four = commands.add_parser("report", help="write the report")
    four.add_argument("--out", default=str(here / "reports/quality.md"))
    for each in (two, three, four):
        each.add_argument("--results", default=str(RESULTS))
    commands.add_parser("self-check", help="hold the statistics and the keys against values by hand")
    args = parser.parse_args()
    actions = {"rows": list_rows, "run": run, "numbers": numbers, "merge": merge, "report": report,
               "self-check": self_check}
    sys.exit(actions[args.command](args))


if __name__ == "__main__":
    main()
