"""The finished runs of the quality report, a JSON list that is rewritten after each."""

import json
import os
import pathlib
import threading

import quality_statistics


class Store:
    """Results by key. A failed run is kept with its error, and is no result."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.lock = threading.Lock()
        entries = json.loads(self.path.read_text()) if self.path.exists() else []
        self.entries = {entry["key"]: entry for entry in entries}

    def finished(self, key):
        """The result of a key; None for a run that is missing or failed."""
        entry = self.entries.get(key)
        return entry if entry and "error" not in entry else None

    def add(self, entry):
        with self.lock:
            self.entries[entry["key"]] = entry
            self.write()

    def merge(self, path):
        """Takes over what another file has finished, and what failed there and is unknown here."""
        other = Store(path)
        for key, entry in other.entries.items():
            if "error" not in entry or key not in self.entries:
                self.entries[key] = entry
        self.write()
        return len(other.entries)

    def write(self):
        order = sorted(self.entries.values(), key=lambda entry: (entry["scale"], entry["job"], entry["seed"]))
        replace(self.path, "[\n" + ",\n".join(json.dumps(entry) for entry in order) + "\n]\n")


def deviations(entries):
    """The deviation over seeds that all jobs of a scale and pool share, and its degrees of freedom."""
    groups = {}
    for entry in entries:
        if "error" not in entry:
            by_job = groups.setdefault((entry["scale"], entry["pool"]), {})
            by_job.setdefault(entry["job"], {})[entry["seed"]] = entry["loss"]
    return {place: quality_statistics.pooled([list(by_seed.values()) for by_seed in by_job.values()])
            for place, by_job in groups.items()}


def replace(path, text):
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
