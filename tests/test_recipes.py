"""The recipes that come with the project."""

from pathlib import Path

import pytest
import yaml

from mixbench import catalog
from mixbench.resolve import load_sweep

ROOT = Path(__file__).parent.parent
RECIPES = yaml.safe_load((ROOT / "sweeps" / "recipes.yaml").read_text())

KIM_ET_AL = {"batch_size": 100, "nesterov": True, "weight_decay": 1e-4, "criterion": "bce", "pad_mode": "zeros"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The runs of methods on a setting, which may be ``{setting: recipe}``, by the method's name."""
    monkeypatch.chdir(ROOT)

    def loaded(setting, *methods):
        path = tmp_path / "one.yaml"
        path.write_text(yaml.safe_dump({"settings": [setting], "methods": list(methods), "seeds": [0]}))
        return {cell.row: cell.runs[0] for cell in load_sweep(path, data=tmp_path, results=tmp_path).cells}

    return loaded


@pytest.mark.parametrize("setting", [name for name in RECIPES if "/" in name])
def test_every_recipe_of_a_setting_makes_a_run(setting, runs):
    assert runs(setting, "simple")["simple"].setting == setting


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("cifar100/wrn28_10", {"epochs": 400, "milestones": (200, 300), "lr": 0.1, "pad": 2}),
        ("cifar100/preactresnet18", {"epochs": 1200, "milestones": (400, 800), "lr": 0.1, "pad": 2}),
        ("tiny_imagenet/preactresnet18", {"epochs": 1200, "milestones": (600, 900), "lr": 0.2, "pad": 4}),
        ("cifar10/wrn28_10", {"epochs": 400, "milestones": (200, 300), "lr": 0.1, "pad": 2}),
    ],
)
def test_kim_et_als_recipes_are_theirs(setting, told, runs):
    run = runs(setting, "simple")["simple"]
    wanted = {**KIM_ET_AL, **told, "lr_drop": 0.1, "momentum": 0.9, "flip": True}
    assert {name: getattr(run, name) for name in wanted} == wanted


def test_mixup_and_cutmix_have_kim_et_als_alpha_on_tiny_imagenet_and_their_own_elsewhere(runs):
    for setting, options in (("tiny_imagenet/preactresnet18", (("alpha", 0.2),)), ("cifar100/preactresnet18", ())):
        found = runs(setting, "mixup", "cutmix")
        assert found["mixup"].options == found["cutmix"].options == options


def test_puzzlemix_has_kim_et_als_options(runs):
    tiny = {"t_size": -1, "clean_lam": 1.0}
    for setting, told in (
        ("cifar100/wrn28_10", {}),
        ("cifar100/preactresnet18", {}),
        ("tiny_imagenet/preactresnet18", tiny),
    ):
        assert dict(runs(setting, "puzzlemix")["puzzlemix"].options) == told
    common = {"mixup_alpha": 1.0, "n_labels": 3, "eta": 0.2, "beta": 1.2, "gamma": 0.5, "neigh_size": 4, "t_eps": 0.8}
    cifar = {
        "transport": True,
        "t_size": 4,
        "clean_lam": 0.0,
        "adv_p": 0.0,
        "adv_eps": 10.0,
        "block_num": (2, 4, 8, 16),
    }
    defaults = catalog.declaration("puzzlemix").options
    assert common | cifar == {name: defaults[name] for name in common | cifar}


def test_kim_et_als_recipes_can_be_had_with_cross_entropy(runs):
    assert runs({"cifar100/wrn28_10": "ce"}, "simple")["simple"].criterion == "ce"


@pytest.mark.parametrize("name", [name for name, said in RECIPES.items() if "/" not in name and "task" not in said])
@pytest.mark.parametrize("setting", [name for name, said in RECIPES.items() if "mini" in said and "/" in name])
def test_every_recipe_that_is_laid_over_a_setting_leaves_its_trial_possible(setting, name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"settings": [{setting: name}], "methods": ["simple"], "seeds": [0]}))
    (cell,) = load_sweep(path, data=tmp_path, results=tmp_path, mini=True).cells
    assert cell.runs[0].epochs <= 2
    assert cell.runs[0].milestones == ()
