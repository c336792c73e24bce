"""Compares `apus bench train` with its PyTorch peer on the same cores in one run.

Both programs are started, built up and warmed; then they run blocks of steps in turn, so that neither computes while
the other is timed and both see the same machine. The result is a Markdown table with the ratio of the medians.

Usage:
    python alternate_train.py --apus .build/release/apus --threads 2 --dtype f32 --rounds 6 --steps 4
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys


class Program:
    """One of the two, spoken to by lines: a number of steps in, one JSON object out."""

    def __init__(self, name, command):
        self.name = name
        self.seconds, self.last = [], {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            sys.exit(f"{name} did not get ready: {line.strip() or 'it ended'} ({' '.join(command)})")
        self.parameters = int(line.split()[1])

    def block(self, steps, counts):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}")
        self.last = json.loads(line)
        if counts:
            self.seconds += self.last["step_seconds"]

    def quit(self):
        self.process.stdin.close()
        self.process.wait()

    @property
    def median(self):
        return statistics.median(self.seconds)

    def row(self, reference):
        tokens = self.last["tokens_per_step"]
        return (f"| {self.name} {self.last['version']} | {self.median * 1e3:.0f} | "
                f"{min(self.seconds) * 1e3:.0f} to {max(self.seconds) * 1e3:.0f} | {tokens / self.median:.0f} | "
                f"{reference.median / self.median:.2f} | {self.last['peak_rss_bytes'] / 2**20:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--apus", default=str(here.parent.parent / ".build/release/apus"))
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--rounds", type=int, default=6, help="blocks of each program that count")
    parser.add_argument("--steps", type=int, default=4, help="steps of a block")
    args = parser.parse_args()

    apus = Program("Apus", [args.apus, "bench", "train", "--threads", str(args.threads), "--precision", args.dtype,
                            "--interactive"])
    peer = Program("PyTorch", [args.python, str(here / "train_step.py"), "--threads", str(args.threads), "--dtype",
                               args.dtype, "--interactive"])
    if apus.parameters != peer.parameters:
        sys.exit(f"the models differ: {apus.parameters} and {peer.parameters} parameters")
    # The first block of each is not counted: caches and clocks settle in it.
    for round in range(args.rounds + 1):
        # Who goes first changes, so that a drift of the machine favours neither.
        for program in (apus, peer) if round % 2 else (peer, apus):
            program.block(args.steps, counts=round > 0)
    for program in (apus, peer):
        program.quit()

    print(f"Training step, {args.dtype}, {args.threads} threads, {apus.parameters:,} parameters, "
          f"{args.rounds} blocks of {args.steps} steps each, in turn.\n")
    print("| program | median ms | range ms | tokens/s | times PyTorch | peak RSS MiB |")
    print("|---|---|---|---|---|---|")
    print(apus.row(peer))
    print(peer.row(peer))
    print(f"\nSystem allocations in Apus' last block: {apus.last['system_allocations']}; "
          f"tensors held at most: {apus.last['peak_bytes'] / 2**20:.0f} MiB.")


if __name__ == "__main__":
    main()
