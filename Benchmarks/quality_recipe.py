"""Recipes as the quality report sees them: what is in one, what --set options change, and the key of a finished run."""

import hashlib
import json
import pathlib

# What does not change a run's numbers, or is named by content in the key instead of by path.
PATHS = ("seed", "output", "data.path", "training.start", "distillation.teacher", "training.threads")


def scalar(text):
    """A YAML scalar as Python has it."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    for form in (int, float):
        try:
            return form(text)
        except ValueError:
            pass
    return text


def read(path):
    """A recipe's mappings of mappings of scalars; lists and inline groups are not used by the recipes read here."""
    root = {}
    open_groups = [(-1, root)]
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        text = line.split(" #")[0].rstrip()
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        indent = len(text) - len(text.lstrip())
        name, colon, value = text.strip().partition(":")
        value = value.strip()
        if not colon or value[:1] in ("[", "{", "-"):
            raise ValueError(f"{path}:{number}: '{text.strip()}' is no 'key: value' that this reader knows")
        while open_groups[-1][0] >= indent:
            open_groups.pop()
        group = open_groups[-1][1]
        if value:
            group[name] = scalar(value)
        else:
            group[name] = {}
            open_groups.append((indent, group[name]))
    return root


def changed(recipe, settings):
    """The recipe after --set options, as `apus` applies them: a group may be replaced as a whole."""
    result = json.loads(json.dumps(recipe))
    for dotted, value in settings.items():
        group = result
        *outer, last = dotted.split(".")
        for name in outer:
            if not isinstance(group.get(name), dict):
                group[name] = {}
            group = group[name]
        group[last] = value
    return result


def without_paths(recipe):
    """The recipe less what names places of one machine."""
    result = json.loads(json.dumps(recipe))
    for dotted in PATHS:
        group = result
        *outer, last = dotted.split(".")
        for name in outer:
            group = group.get(name) or {}
        group.pop(last, None)
    return result


def flow(value):
    """A value as inline YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {flow(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def options(settings):
    """The --set options of a command."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={flow(value)}")]


def digest(value):
    """The sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def data_digest(path):
    """What a text is: a file's sha256, or that of the checksums in a prepared folder's manifest."""
    path = pathlib.Path(path)
    if path.is_dir():
        manifest = json.loads((path / "manifest.json").read_text())
        return digest([shard["checksum"] for shard in manifest["shards"]])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def key(recipe, *, data, seed, scale, parents=(), surgery=None, teacher=False):
    """What a run is known by: equal keys are the same run, whatever folders it used."""
    return digest({"recipe": without_paths(recipe), "data": data, "seed": seed, "scale": scale,
                   "parents": list(parents), "surgery": surgery, "teacher": teacher})
