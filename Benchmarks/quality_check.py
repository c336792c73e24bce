"""Checks of the quality report that need no training: recipes, keys and the table of rows."""

import pathlib
import tempfile

import quality_recipe
from quality_rows import SCALES, jobs, rows
from quality_store import Store, deviations


def recipes(root):
    """The reader against lines written here, and the overrides as `apus` applies them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "recipe.yaml"
        path.write_text("# head\nseed: 1\nmodel:\n  width: 64   # D\n  experts:\n    count: 8\n    policy: dropless\n"
                        "training:\n  rate: 0.5\n  shuffle: true\n")
        read = quality_recipe.read(path)
        assert read == {"seed": 1, "model": {"width": 64, "experts": {"count": 8, "policy": "dropless"}},
                        "training": {"rate": 0.5, "shuffle": True}}, read
        path.write_text("model: {width: 1}\n")
        try:
            quality_recipe.read(path)
            raise AssertionError("an inline group was read")
        except ValueError as error:
            assert ":1:" in str(error)
    changed = quality_recipe.changed(read, {"model.experts.policy": {"capacity": 1.0}, "model.experts.count": [4, 8]})
    assert changed["model"]["experts"] == {"count": [4, 8], "policy": {"capacity": 1.0}}
    assert read["model"]["experts"]["count"] == 8, "the recipe itself was changed"
    assert quality_recipe.changed(read, {"model.experts": None})["model"] == {"width": 64, "experts": None}
    options = quality_recipe.options({"a.b": {"x": 1.0, "y": [1, 2]}, "c": None, "d": False, "e": 1e-06})
    assert options == ["--set", "a.b={x: 1.0, y: [1, 2]}", "--set", "c=null", "--set", "d=false", "--set", "e=1e-06"]
    base = quality_recipe.read(root / "Recipes/quality.yaml")
    assert base["model"]["experts"]["losses"]["z"] == 0.001 and base["data"]["path"] == "linux8k"


def keys():
    """A key follows what changes the numbers, and nothing else."""
    recipe = {"seed": 1, "model": {"width": 8}, "data": {"path": "here", "shuffle": True}, "output": {"keep": 1}}
    known = quality_recipe.key(recipe, data="d", seed=1, scale="cpu")
    elsewhere = quality_recipe.changed(recipe, {"data.path": "there", "output.keep": 2, "training.start": "model"})
    elsewhere.pop("training")
    assert quality_recipe.key(elsewhere, data="d", seed=1, scale="cpu") == known
    others = [
        quality_recipe.key(quality_recipe.changed(recipe, {"model.width": 9}), data="d", seed=1, scale="cpu"),
        quality_recipe.key(recipe, data="e", seed=1, scale="cpu"), quality_recipe.key(recipe, data="d", seed=2, scale="cpu"),
        quality_recipe.key(recipe, data="d", seed=1, scale="gpu"),
        quality_recipe.key(recipe, data="d", seed=1, scale="cpu", parents=["p"]),
        quality_recipe.key(recipe, data="d", seed=1, scale="cpu", surgery=["prune"]),
        quality_recipe.key(recipe, data="d", seed=1, scale="cpu", teacher=True)]
    assert len({known, *others}) == 8


def table():
    """Every name of a row is a job, every parent too, and sides of a comparison spread alike."""
    for scale in SCALES.values():
        known = jobs(scale)
        for row in rows(scale):
            for comparison in row.comparisons:
                ours, reference = known[comparison.ours], known[comparison.reference]
                assert ours.pool == reference.pool and comparison.claim in ("lower", "higher", "equal"), row.name
        for job in known.values():
            assert all(parent.partition("+")[0] in known for parent in job.parents), job.name
            assert not job.evaluates or not job.settings, job.name


def store():
    """What was finished stays when the other file knows of a failure only."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Store(f"{folder}/a.json"), Store(f"{folder}/b.json")
        entry = {"scale": "cpu", "pool": "text", "job": "moe", "seed": 1}
        ours.add(entry | {"key": "1", "loss": 2.0})
        ours.add(entry | {"key": "3", "loss": 2.5, "seed": 2})
        theirs.add(entry | {"key": "1", "error": "no"})
        theirs.add(entry | {"key": "2", "error": "no", "job": "dense"})
        again = Store(f"{folder}/a.json")
        again.merge(f"{folder}/b.json")
        again = Store(f"{folder}/a.json")
        assert again.finished("1")["loss"] == 2.0 and again.finished("2") is None and "2" in again.entries
        deviation, freedom = deviations(again.entries.values())["cpu", "text"]
        assert freedom == 1 and abs(deviation - 0.125 ** 0.5) < 1e-12


def check(root):
    recipes(root)
    keys()
    table()
    store()
