"""`apus bench collectives --device cuda` and its peer, block by block in turn; prints a table, writes a JSON object.

    python3 alternate_collectives.py --apus ../../../.build/release/apus --ranks 2 --out collectives.json
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--apus", default="apus")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 27, 1 << 30])
    parser.add_argument("--out", default="collectives.json")
    args = parser.parse_args()
    sizes = [str(size) for size in args.sizes]
    launch = shlex.split(args.mpirun) + ["-n", str(args.ranks)]
    commands = {
        "apus": [args.apus, "bench", "collectives", "--device", "cuda", "--json", "--seconds", str(args.seconds),
                 "--sizes", *sizes],
        "torch": [args.python, os.path.join(here, "collectives.py"), "--seconds", str(args.seconds), "--sizes", *sizes],
    }
    blocks = {name: [] for name in commands}
    for block in range(args.blocks):
        # Who comes first changes, so that a machine that warms up favours neither.
        for name in sorted(commands, reverse=block % 2 == 1):
            blocks[name].append(run(launch + commands[name]))
    with open(args.out, "w") as file:
        json.dump(blocks, file)
    report(blocks)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=500)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}")
    # Libraries may have written lines of their own before.
    return json.loads(done.stdout[done.stdout.index('{"'):])


def report(blocks):
    print(", ".join(f"{name}: {parts[0]['messages_by']}" for name, parts in blocks.items()))
    times = {}
    for name, parts in blocks.items():
        for part in parts:
            for row in part["results"]:
                times.setdefault((row["operation"], row["bytes"]), {}).setdefault(name, []).append(row)
    print(f"{'operation':20} {'bytes':>11} {'apus us':>10} {'torch us':>10} "
          f"{'apus bus GB/s':>14} {'torch':>8} {'ratio':>7}")
    for (operation, size), rows in times.items():
        if len(rows) < 2:
            continue
        seconds = {name: statistics.median(row["seconds"] for row in own) for name, own in rows.items()}
        speeds = {name: statistics.median(row["bus_gb_per_second"] for row in own) for name, own in rows.items()}
        print(f"{operation:20} {size:11} {seconds['apus'] * 1e6:10.1f} {seconds['torch'] * 1e6:10.1f} "
              f"{speeds['apus']:14.1f} {speeds['torch']:8.1f} {seconds['torch'] / seconds['apus']:7.3f}")


if __name__ == "__main__":
    main()
