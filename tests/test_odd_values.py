"""Odd values put anywhere into a description of experiments: it loads, or a sentence says what is wrong."""

import copy
import math
import random
import re
from pathlib import Path

import pytest
import yaml

from mixbench import yamlfile
from mixbench.resolve import load_sweep

ROOT = Path(__file__).parent.parent

EVERYTHING = """\
settings: [digits/tiny, {digits/tiny: [fast, other]}]
methods:
  simple:
  wide: {method: mixup, label: M, alpha: [0.5, 1.0], set: {weight_decay: 1.0e-3}}
  cutmix: {recipe: row, prob: 0.5}
  softmax_cam:
    teacher:
      {method: mixup, alpha: 0.3, setting: digits/tiny, seed: 7, recipe: other, set: {lr: 1}, teacher: {method: simple}}
seeds: [0, 1]
set: {weight_decay: 1.0e-3}
teacher: {method: simple}
table: {caption: c, cell: "{top1:.2f}", compare: simple, note: n, paper: 2}
recipes:
  digits/tiny: {epochs: 3, milestones: [1, 2], pad: 1, mean: [0.3], std: [0.4], train_images: 200, precision: bfloat16}
  fast: {epochs: 2, milestones: [], label: fast, evaluate_every: 2, options: {mixup: {alpha: 0.4}}}
  other: {lr: 0.2, checkpoint_seconds: 5}
  row: {options: {cutmix: {alpha: 0.4}}}
"""
ODD = [None, [], {}, "", "x", 0, -1, 1.5, True, [[1]], {"a": 1}, [None], math.nan, math.inf, 10**400, "1e-4"]


def places(tree, here=()):
    """The way to every scalar and sub-tree."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*here, key)
        if isinstance(value, dict | list):
            yield from places(value, (*here, key))


def with_odd(tree, place, value):
    tree = copy.deepcopy(tree)
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return tree


def loads_or_complains(path):
    """Load a sweep; the only thing that may go wrong is a `ValueError` of one sentence that names a file."""
    complaint = ""
    try:
        sweep = load_sweep(path, data=path.parent / "data", results=path.parent / "results")
    except ValueError as error:
        complaint = str(error)
    if complaint:
        assert re.match(rf"{re.escape(str(path.parent))}/\w+\.yaml: \S", complaint)
        return False
    assert all(len(run.id) == 10 for stage in sweep.stages() for run in stage)
    return True


@pytest.fixture
def odd_ones(tmp_path, monkeypatch):
    """Loads a tree with each odd value at each place; how many load and how many do not."""
    monkeypatch.chdir(tmp_path)

    def tried(sweep, recipes, spoiled):
        found = [0, 0]
        for name in ("s.yaml", "recipes.yaml"):
            (tmp_path / name).touch()
        for place in places(spoiled):
            for value in ODD:
                odd = with_odd(spoiled, place, value)
                # Not through files, since writing and reading YAML takes most of the time.
                trees = {
                    "s.yaml": odd if spoiled is sweep else sweep,
                    "recipes.yaml": odd if spoiled is recipes else recipes,
                }
                monkeypatch.setattr(yamlfile, "load", lambda path, trees=trees: trees[path.name])
                found[loads_or_complains(tmp_path / "s.yaml")] += 1
        return found

    return tried


QUICKSTART, RECIPES = (
    yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text()) for name in ("quickstart", "recipes")
)


@pytest.mark.parametrize("sweep", [QUICKSTART, yaml.safe_load(EVERYTHING)], ids=["quickstart", "everything"])
def test_odd_value_anywhere_in_a_sweep_loads_or_is_named(sweep, odd_ones):
    refused, loaded = odd_ones(sweep, RECIPES, sweep)
    assert refused > 5 * loaded > 0


def test_odd_value_anywhere_in_a_recipe_loads_or_is_named(odd_ones):
    more = {"options": {"mixup": {"alpha": 0.5}}, "milestones": [], "mean": [0.3], "std": [1], "test_images": 5}
    recipes = {"digits/tiny": RECIPES["digits/tiny"] | more, "search_digits": RECIPES["search_digits"]}
    refused, loaded = odd_ones(QUICKSTART, recipes, recipes)
    assert refused > 5 * loaded > 0


def test_everything_that_a_sweep_can_say_loads(tmp_path):
    (tmp_path / "s.yaml").write_text(EVERYTHING)
    assert loads_or_complains(tmp_path / "s.yaml")


def test_odd_character_anywhere_in_a_sweep_loads_or_is_named(tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    text = tiny.read_text()
    for _ in range(300):
        at, end = sorted(rng.randrange(len(text)) for _ in range(2))
        signs = rng.choice(["", *"\t:{}[]-,'\"&*!|>%@`#?~=\n 0é\x07\x85\u2028", "<<: ", "? ", "...", "---"])
        tiny.write_text(text[:at] + signs + text[rng.choice([at, at + 1, end]) :])
        loads_or_complains(tiny)
