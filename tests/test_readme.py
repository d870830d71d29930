"""What the README says is what happens: its code, its sweeps, its map."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mixbench import sweepfile
from mixbench.cli import cli
from mixbench.slurm.site import settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language, containing):
    """The one fenced block of that language with these words in it."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in text]
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the code in which the README's mixer has been saved where it says."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("methods", "mixbench", "analysis", "sweeps"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "methods" / "gridmix.py").write_text(block("python", "GridMix"))
    (checkout / "mine.yaml").write_text(block("yaml", "gridmix:"))
    return checkout


def call(checkout, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme_mixer_keeps_the_contract(checkout):
    (named,) = re.findall(r"^mixbench check (\w+)$", README, re.MULTILINE)
    assert call(checkout, "-m", "mixbench", "check", named) == "gridmix keeps the contract\n"


def test_readme_mixer_is_listed_and_compared(checkout):
    assert "gridmix" in call(checkout, "-m", "mixbench", "list")
    call(checkout, "-m", "mixbench", "run", "mine.yaml")
    table = call(checkout, "-m", "mixbench", "report", "mine.yaml")
    assert "GridMix[cells=2]" in table
    assert "GridMix[cells=4]" in table
    assert "missing" not in table


def test_readme_shows_the_quickstart_as_it_is():
    shown = yaml.safe_load(block("yaml", "caption: Quickstart"))
    real = yaml.safe_load((ROOT / "sweeps" / "quickstart.yaml").read_text())
    assert shown == real | {"table": {key: real["table"][key] for key in shown["table"]}}


def test_readme_rows_load(tmp_path):
    rows = block("yaml", "gentle:")
    (tmp_path / "rows.yaml").write_text(f"settings: [digits/tiny]\nseeds: [0]\n{rows}")
    names = [row.name for row in sweepfile.read(tmp_path / "rows.yaml").rows]
    assert names == ["simple", "mixup[alpha=0.2]", "mixup[alpha=1.0]", "gentle"]


def test_readme_sweep_of_own_images_loads(tmp_path):
    (tmp_path / "flowers.yaml").write_text(block("yaml", "image_folder:flowers"))
    said = sweepfile.read(tmp_path / "flowers.yaml")
    assert said.recipes.find("image_folder:flowers/resnet18").values["image_size"] == 64


def test_readme_import_loads(tmp_path):
    said = block("yaml", "task: import")
    (tmp_path / "s.yaml").write_text(f"settings: [cifar10/resnet20]\nmethods: [softmax_cam]\nseeds: [0]\n{said}")
    found = sweepfile.read(tmp_path / "s.yaml")
    assert found.recipes.find(found.links["teacher"].recipe).values["checkpoint"] == "weights/resnet20.pt"


def test_readme_map_names_only_modules_that_there_are():
    shown = README.partition("## A map of the code")[2]
    named = set(re.findall(r"\b[a-z_]+\.py\b", shown))
    real = {path.name for package in ("methods", "mixbench", "analysis") for path in (ROOT / package).glob("*.py")}
    assert named <= real


def test_readme_commands_exist():
    fenced = "".join(re.split(r"^```", README, flags=re.MULTILINE)[1::2])
    used = set(re.findall(r"^mixbench (\w+)", fenced, re.MULTILINE))
    assert used <= set(cli.commands)
    options = {option for command in cli.commands.values() for part in command.params for option in part.opts}
    assert set(re.findall(r"`(?:mixbench \w+ )?(--[a-z-]+)", README)) <= options


def test_readme_site_settings_load(tmp_path):
    (tmp_path / "site.yaml").write_text(block("yaml", "account: vision"))
    site = settings(tmp_path / "site.yaml", [])
    assert (site.minutes, site.setup) == (24 * 60, ("module load cuda",))
