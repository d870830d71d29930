import importlib
import inspect
import sys
import typing
from pathlib import Path

import pytest

from methods import base
from mixbench import catalog
from mixbench.declaration import SAID, Declaration

METHODS = Path(base.__file__).parent


@pytest.fixture(autouse=True)
def afresh():
    """No test knows a declaration from another."""
    catalog.declaration.cache_clear()
    yield
    catalog.declaration.cache_clear()


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """Puts a file among this repository's mixers."""

    def put(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        files = (*sorted(METHODS.glob("*.py")), path)
        monkeypatch.setattr(catalog, "_files", lambda: files)
        return path

    return put


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Installs another package, with a module ``stranger``, that offers mixers by these names."""

    def install(text, **offers):
        site = tmp_path / "site"
        about = site / "stranger-1.0.dist-info"
        about.mkdir(parents=True)
        (site / "stranger.py").write_text(text)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
        points = "\n".join(f"{name} = stranger:{found}" for name, found in offers.items())
        (about / "entry_points.txt").write_text(f"[mixbench.mixers]\n{points}\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "stranger", raising=False)

    return install


MIXER = """
from methods import Mixer, register


@register("mine")
class Mine(Mixer):
    \"\"\"Mixes in my way.

    And more.
    \"\"\"

    label = "My way"
    source: str = "Me, 2025"
    defaults = "my thesis"
    passes = 2.5

    def __init__(self, teacher, *, alpha: float = 1.0, k: int = 2, sizes: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
"""


def test_names_are_those_of_the_files_that_register_a_mixer_of_their_name():
    modules = [importlib.import_module(f"methods.{path.stem}") for path in METHODS.glob("[a-z]*.py")]
    ours = {module.__name__ for module in modules}
    registered = [name for name, mixer in base._registered.items() if mixer.__module__ in ours]
    assert catalog.names() == sorted(registered)
    assert {"simple", "mixup", "cutmix", "lr", "softmax_cam"} <= set(catalog.names())


@pytest.mark.parametrize("name", sorted(path.stem for path in METHODS.glob("*.py") if "@register(" in path.read_text()))
def test_declaration_read_from_source_is_the_signature_of_the_class(name):
    declared, mixer = catalog.declaration(name), base.find(name)
    parameters = list(inspect.signature(mixer).parameters.values())
    options = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    assert list(declared.options.items()) == [(one.name, one.default) for one in options]
    assert [type(default) for default in declared.options.values()] == [type(one.default) for one in options]
    assert declared.given == tuple(one.name for one in parameters if one.kind is not one.KEYWORD_ONLY)
    assert declared.label == mixer.label
    assert {said: getattr(declared, said) for said in SAID} == {said: getattr(mixer, said) for said in SAID}
    assert declared.summary == inspect.getdoc(mixer).splitlines()[0]
    hints = typing.get_type_hints(mixer.__init__)
    words = {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}
    assert declared.choices == words


def test_option_is_one_of_the_words_that_it_is_annotated_with():
    assert catalog.settled("cutmix", {"draw": "sample"}) == {"draw": "sample"}
    with pytest.raises(ValueError, match="draw of method 'cutmix' is one of batch, sample, not 'bach'"):
        catalog.settled("cutmix", {"draw": "bach"})


def test_declaration_has_all_that_a_file_says(ours):
    ours("mine", MIXER)
    assert catalog.declaration("mine") == Declaration(
        name="mine",
        label="My way",
        source="Me, 2025",
        defaults="my thesis",
        draws="",
        asks="",
        passes=2.5,
        summary="Mixes in my way.",
        options={"alpha": 1.0, "k": 2, "sizes": (1, 2)},
        choices={},
        given=("teacher",),
    )
    assert "mine" in catalog.names()


def test_declaration_does_not_run_the_file(ours):
    ours("mine", MIXER + "\nraise RuntimeError\n")
    assert catalog.declaration("mine").label == "My way"


def test_declaration_without_a_label_is_called_as_its_file(ours):
    ours("mine", MIXER.replace('label = "My way"', ""))
    assert catalog.declaration("mine").label == "mine"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('@register("mine")', '@register("other")'), r"mine\.py has no class under @register\('mine'\)"),
        (('@register("mine")', "@register(NAME)"), r"mine\.py has no class under @register\('mine'\)"),
        (("k: int = 2", "k: int"), "option k needs a literal default: a number, text, True or False, or a tuple"),
        (("k: int = 2", "k: int = K"), "option k needs a literal default"),
        (("k: int = 2", "k: int | None = None"), "option k needs a literal default"),
        (("k: int = 2", "k: list[int] = [1]"), "option k needs a literal default"),
        (("k: int = 2", "k: tuple[str] = ('a',)"), "option k needs a literal default"),
        (("__init__", "forward"), "Mine has no __init__; write one, its signature declares the options"),
        (('label = "My way"', "label = name()"), r"Mine\.label must be plain text in quotes"),
        (("class Mine(Mixer):", "class Mine(Mixer:"), r"mine\.py: line 6 is no valid Python"),
    ],
)
def test_declaration_that_cannot_be_read_names_the_file_and_what_to_write(change, sentence, ours):
    path = ours("mine", MIXER.replace(*change))
    with pytest.raises(ValueError, match=sentence) as error:
        catalog.declaration("mine")
    assert str(path) in str(error.value)


def test_declaration_of_an_unknown_method_lists_those_there_are():
    with pytest.raises(
        ValueError, match=r"there is no method 'mixupp'; there are: .*cutmix, lr, .*mixup, puzzlemix, .*simple"
    ):
        catalog.declaration("mixupp")


@pytest.mark.parametrize("name", ["ops", "base", "__init__", "../methods/mixup", "mixup.py", "", "Mixup"])
def test_declaration_takes_no_file_that_is_no_mixer(name):
    with pytest.raises(ValueError, match="there is no method"):
        catalog.declaration(name)


THEIRS = """
from methods import Mixer


class Theirs(Mixer):
    \"\"\"Mixes in their way.\"\"\"

    label = "Their way"
    source = "They, 2025"
    draws = "lam for each image"

    def __init__(self, teacher, *, cells: int = 4) -> None:
        super().__init__()


class Bare(Mixer):
    def __init__(self, *, cells) -> None:
        super().__init__()


class Stranger:
    pass
"""


def test_mixer_of_another_package_is_found_through_its_entry_point(theirs):
    theirs(THEIRS, gridmix="Theirs")
    assert catalog.declaration("gridmix") == Declaration(
        name="gridmix",
        label="Their way",
        source="They, 2025",
        defaults="",
        draws="lam for each image",
        asks="",
        passes=1.0,
        summary="Mixes in their way.",
        options={"cells": 4},
        choices={},
        given=("teacher",),
    )
    assert catalog.names()[-1] == "gridmix"


def test_mixer_of_another_package_is_imported_only_when_it_is_asked_for(theirs):
    theirs("raise RuntimeError", gridmix="Theirs")
    assert "gridmix" in catalog.names()
    assert catalog.declaration("mixup").label == "Mixup"


@pytest.mark.parametrize(
    ("text", "found", "sentence"),
    [
        (
            "raise RuntimeError('no')",
            "Theirs",
            r"'gridmix' of stranger:Theirs cannot be imported: RuntimeError\('no'\)",
        ),
        (THEIRS, "Nobody", "'gridmix' of stranger:Nobody cannot be imported: AttributeError"),
        (THEIRS, "Stranger", "'gridmix' of stranger:Stranger is no methods.Mixer"),
        (THEIRS, "Bare", "stranger:Bare: option cells needs a literal default"),
    ],
)
def test_mixer_of_another_package_that_is_none_is_named(text, found, sentence, theirs):
    theirs(text, gridmix=found)
    with pytest.raises(ValueError, match=sentence):
        catalog.declaration("gridmix")


def test_two_mixers_of_one_name_are_an_error_that_names_both(theirs):
    theirs(THEIRS, mixup="Theirs")
    with pytest.raises(ValueError, match=r"two mixers are called 'mixup': methods\.mixup and stranger:Theirs"):
        catalog.declaration("mixup")


def test_settled_brings_options_to_the_type_of_their_default(ours):
    ours("mine", MIXER)
    settled = catalog.settled("mine", {"alpha": 3, "sizes": [4, 5]})
    assert settled == {"alpha": 3.0, "sizes": (4, 5)}
    assert type(settled["alpha"]) is float


def test_settled_leaves_out_what_equals_its_default(ours):
    ours("mine", MIXER)
    assert catalog.settled("mine", {"alpha": 1, "k": 2, "sizes": [1, 2]}) == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alhpa": 1.0}, r"method 'mine' has no option alhpa; its options: alpha=1.0, k=2, sizes=\(1, 2\)$"),
        ({"teacher": 1.0}, r"teacher of method 'mine' stands before the \* of its __init__"),
        ({"k": 2.0}, "k must be a whole number, not 2.0"),
        ({"alpha": "1e-1"}, r"alpha must be a number, not '1e-1' \(to YAML that is text: write 1.0e-01\)"),
        ({"alpha": {"a": 1}}, "alpha must be a number, not {'a': 1}"),
        ({"alpha": None}, "alpha must be a number, not None"),
        ({"alpha": float("nan")}, "alpha must be a finite number, not nan"),
        ({"sizes": 1}, "sizes must be a list of numbers, not 1"),
        ({"sizes": [0.5]}, "sizes must be a whole number, not 0.5"),
    ],
)
def test_settled_refuses_what_the_mixer_does_not_take(options, sentence, ours):
    ours("mine", MIXER)
    with pytest.raises(ValueError, match=sentence):
        catalog.settled("mine", options)


def test_settled_says_of_a_method_without_options_that_it_has_none():
    with pytest.raises(ValueError, match="method 'simple' has no option alpha; its options: none"):
        catalog.settled("simple", {"alpha": 1.0})


def test_filled_has_every_option(ours):
    ours("mine", MIXER)
    assert catalog.filled("mine", {"k": 3}) == {"alpha": 1.0, "k": 3, "sizes": (1, 2)}


PUBLISHED = {
    "mixup": {"alpha": 1.0, "draw": "batch"},
    "cutmix": {"alpha": 1.0, "prob": 1.0, "draw": "batch"},
    "saliencymix": {"saliency": "paper", "alpha": 1.0, "prob": 1.0},
    "resizemix": {"definition": "paper", "scope": (0.1, 0.8), "alpha": 1.0, "prob": 1.0, "draw": "batch"},
    "manifold_mixup": {"alpha": 2.0, "layers": (0, 1, 2), "draw": "batch"},
    "augmix": {"severity": 3.0, "width": 3, "depth": -1, "alpha": 1.0, "jsd": 12.0, "all_ops": False},
    "supermix": {"k": 2, "alpha": 3.0, "mask_width": 8, "sigma": 1.0, "lambda_s": 25.0, "max_iter": 50, "tol": 10.0}
    | {"unfinished": "drop", "class_from": "prediction", "label_from": "lam"},
    "supermix_offline": {"pad": 2, "flip": True, "label_from": "teacher"},
    "automix": {"alpha": 2.0, "momentum": 0.999, "end_momentum": 0.999999, "mask_loss": 0.1, "mask_loss_margin": 0.1}
    | {"mask_loss_decay": False, "lam_margin": 0.08, "lam_concat": False, "layer": 0, "mask_lr": ()}
    | {"mask_momentum": -1.0},
}
"""What the authors of each method publish, as `defaults` of its class says where."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_not_said_is_what_the_authors_say(name):
    assert catalog.declaration(name).options == PUBLISHED[name]
