from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixbench import catalog
from mixbench.recipes import Recipes
from mixbench.resolve import load_sweep
from mixbench.sweepfile import LINK_KEYS, ROW_KEYS

SWEEPS = Path(__file__).parent.parent / "sweeps"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No test sees the recipes in the project's own ./sweeps."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(tmp_path):
    """The sweep that a text describes."""

    def loaded(text, path="s.yaml"):
        path = tmp_path / path
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return load_sweep(path, data=tmp_path / "data", results=tmp_path / "results")

    return loaded


@pytest.fixture
def only_run(load):
    """The one run of a sweep of one cell and one seed."""
    return lambda text: load(text).cells[-1].runs[0]


def lr_of(layers):
    """A sweep in which each of these layers says its own learning rate."""
    say = {name: f"lr: {lr}" for name, lr in layers.items()}
    return f"""
settings: [{{digits/tiny: [laid, above]}}]
methods: {{softmax_cam: {{recipe: own, set: {{{say.get("row's set", "")}}}}}}}
seeds: [0]
set: {{{say.get("sweep's set", "")}}}
teacher: {{method: simple}}
recipes:
  digits/tiny: {{epochs: 5, {say.get("setting's recipe", "")}}}
  laid: {{{say.get("column's recipe", "")}}}
  above: {{{say.get("column's second recipe", "")}}}
  own: {{{say.get("row's recipe", "")}}}
"""


LAYERS = [
    "setting's recipe",
    "column's recipe",
    "column's second recipe",
    "row's recipe",
    "sweep's set",
    "row's set",
]


@pytest.mark.parametrize("count", range(len(LAYERS) + 1))
def test_layers_win_over_all_that_come_before_them(count, only_run):
    layers = {name: number + 2.0 for number, name in enumerate(LAYERS[:count])}
    assert only_run(lr_of(layers)).lr == (count + 1.0 if count else 0.1)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_leave_what_they_do_not_say(name, only_run):
    assert only_run(lr_of({name: 7.0})).lr == 7.0


def test_links_own_recipe_and_set_come_over_those_of_setting_and_sweep(only_run):
    text = """
settings: [{digits/tiny: laid}]
methods: [softmax_cam]
seeds: [0]
set: {weight_decay: 0.3}
teacher: {method: simple, recipe: own, set: {momentum: 0.5}}
recipes:
  digits/tiny: {epochs: 5, lr: 0.2, momentum: 0.2, weight_decay: 0.2, lr_drop: 0.2, milestones: [1]}
  laid: {lr: 0.3, lr_drop: 0.3}
  own: {lr_drop: 0.4, momentum: 0.4, weight_decay: 0.4}
"""
    teacher = only_run(text).teacher
    assert (teacher.milestones, teacher.lr, teacher.lr_drop) == ((1,), 0.3, 0.4)
    assert (teacher.weight_decay, teacher.momentum) == (0.3, 0.5)


PLACES = """
settings: [digits/tiny]
methods: [simple]
seeds: [0]
{own}
"""


def test_recipes_of_the_sweep_win_over_those_beside_it_and_these_over_those_in_sweeps(load, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "recipes.yaml").write_text("digits/tiny: {epochs: 3}")
    assert load(PLACES.format(own=""), "elsewhere/s.yaml").cells[0].runs[0].epochs == 3
    (tmp_path / "elsewhere" / "recipes.yaml").write_text("digits/tiny: {epochs: 2}")
    assert load(PLACES.format(own=""), "elsewhere/s.yaml").cells[0].runs[0].epochs == 2
    own = "recipes: {digits/tiny: {epochs: 1}}"
    assert load(PLACES.format(own=own), "elsewhere/s.yaml").cells[0].runs[0].epochs == 1


def test_recipes_in_sweeps_are_known_though_there_are_others_beside_the_sweep(load, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "recipes.yaml").write_text("digits/tiny: {epochs: 3}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "recipes.yaml").write_text("mine: {epochs: 2}")
    text = PLACES.format(own="").replace("digits/tiny", "{digits/tiny: mine}")
    assert load(text, "elsewhere/s.yaml").cells[0].runs[0].epochs == 2


def test_recipes_that_nobody_names_are_not_read(load):
    assert load(PLACES.format(own="recipes: {digits/tiny: {epochs: 1}, spare: {nonsense: 1}}"))


def test_recipe_for_a_setting_that_the_sweep_does_not_have_is_misspelt(load):
    with pytest.raises(ValueError, match="nothing in this sweep uses 'digits/tyni'; is its name right"):
        load(PLACES.format(own="recipes: {digits/tiny: {epochs: 1}, digits/tyni: {epochs: 3}}"))


def test_what_only_says_again_what_the_data_set_is_makes_no_other_run(load):
    plain = load(PLACES.format(own="recipes: {digits/tiny: {epochs: 1}}"))
    said = "{epochs: 1, train_images: 1000, test_images: 797, mean: [0.3070], std: [0.3762]}"
    assert load(PLACES.format(own=f"recipes: {{digits/tiny: {said}}}")).cells == plain.cells


def test_teacher_of_images_with_other_channels_is_refused(load):
    text = """
settings: [cifar10/resnet8]
methods: [softmax_cam]
seeds: [0]
teacher: {method: simple, setting: digits/tiny}
recipes: {cifar10/resnet8: {epochs: 1}, digits/tiny: {epochs: 1}}
"""
    with pytest.raises(ValueError, match="teacher: digits/tiny has 1 channels, but the images of CIFAR-10 have 3"):
        load(text)


def test_rows_of_unlike_protocols_stand_in_one_column_only_where_the_table_allows_it(load):
    text = """
settings: [digits/tiny]
methods: {simple: , longer: {method: simple, set: {epochs: 2}}}
seeds: [0]
table: TABLE
recipes: {digits/tiny: {epochs: 1}}
"""
    with pytest.raises(ValueError, match=r"they differ in epochs .* name these fields under table: in 'unlike:'"):
        load(text.replace("TABLE", "{}"))
    sweep = load(text.replace("TABLE", "{unlike: [epochs]}"))
    assert sweep.labels["longer"] == "Simple (longer)"
    with pytest.raises(ValueError, match="unlike must be a list of a recipe's keys"):
        load(text.replace("TABLE", "{unlike: [epoch]}"))


LINKED = """
settings: [{{digits/tiny: laid}}, digits/resnet8]
methods: {{softmax_cam: {row}}}
seeds: [4]
set: {{weight_decay: 0.5}}
teacher: {link}
recipes:
  digits/tiny: {{epochs: 5}}
  digits/resnet8: {{epochs: 6}}
  laid: {{lr: 0.3}}
  own: {{momentum: 0.7}}
"""


def test_links_inherit_setting_with_its_columns_recipe_seed_and_what_the_sweep_set(load):
    for cell in load(LINKED.format(row="{}", link="{method: simple}")).cells:
        (run,) = cell.runs
        teacher = run.teacher
        assert (teacher.setting, teacher.seed, teacher.lr) == (run.setting, 4, run.lr)
        assert teacher.weight_decay == 0.5
        assert teacher.method == "simple"


def test_links_do_not_inherit_what_the_row_set_nor_its_recipe(only_run):
    text = LINKED.format(row="{recipe: own, set: {pad: 1}}", link="{method: simple}")
    run = only_run(text)
    assert (run.momentum, run.pad) == (0.7, 1)
    assert (run.teacher.momentum, run.teacher.pad) == (0.9, 4)


def test_links_to_another_setting_drop_the_columns_recipe(load):
    first = load(LINKED.format(row="{}", link="{method: simple, setting: digits/resnet8}")).cells[0].runs[0]
    assert (first.lr, first.teacher.lr) == (0.3, 0.1)
    assert (first.teacher.model, first.teacher.epochs) == ("resnet8", 6)


def test_links_inherit_options_unless_they_name_another_method(only_run):
    ends = "teacher: {method: simple}"
    same = only_run(LINKED.format(row="{alpha: 0.2, cam_class: prediction}", link=f"{{alpha: 0.4, {ends}}}"))
    assert dict(same.teacher.options) == {"alpha": 0.4, "cam_class": "prediction"}
    other = only_run(LINKED.format(row="{alpha: 0.2}", link="{method: mixup}"))
    assert dict(other.teacher.options) == {}


def test_links_inherit_whom_the_run_asks(only_run):
    row = "{teacher: {method: softmax_cam, seed: 9, teacher: {method: mixup}}}"
    run = only_run(LINKED.format(row=row, link="{method: simple}"))
    assert (run.teacher.method, run.teacher.seed) == ("softmax_cam", 9)
    assert (run.teacher.teacher.method, run.teacher.teacher.seed) == ("mixup", 9)


def test_links_of_a_row_win_over_the_sweeps(only_run):
    assert only_run(LINKED.format(row="{teacher: {method: mixup}}", link="{method: simple}")).teacher.method == "mixup"


def test_links_can_name_a_seed_for_all(load):
    text = LINKED.format(row="{}", link="{method: simple, seed: 0}").replace("[4]", "[1, 2]")
    assert {run.teacher.seed for run in load(text).cells[0].runs} == {0}


def test_links_are_followed_only_where_the_mixer_asks(only_run):
    assert only_run(LINKED.format(row="{method: mixup}", link="{method: simple}")).teacher is None


def test_teacher_that_is_a_rows_own_run_is_the_same_run_once(load):
    sweep = load(LINKED.format(row="{}, simple: {}", link="{method: simple}"))
    rows = {cell.row: cell.runs[0] for cell in sweep.cells if cell.column == "digits/resnet8"}
    assert rows["softmax_cam"].teacher == rows["simple"]
    assert [len(stage) for stage in sweep.stages()] == [2, 2]


AXES = """
settings: [digits/tiny]
methods: {methods}
seeds: [0, 1]
recipes: {{digits/tiny: {{epochs: 5, options: {options}}}, laid: {{options: {{cutmix: {{prob: 0.7}}}}}}}}
"""


def test_list_of_values_makes_a_row_of_each(load):
    sweep = load(AXES.format(methods="{d: {method: mixup, label: D, alpha: [0.2, 1, 4.0]}, simple: }", options="{}"))
    assert sweep.rows == ["d[alpha=0.2]", "d[alpha=1]", "d[alpha=4.0]", "simple"]
    assert [dict(cell.runs[0].options) for cell in sweep.cells] == [{"alpha": 0.2}, {}, {"alpha": 4.0}, {}]
    assert sweep.labels["d[alpha=0.2]"] == "D[alpha=0.2]"


def test_options_in_a_recipe_are_those_of_the_method_they_name(load):
    sweep = load(AXES.format(methods="[mixup, cutmix]", options="{cutmix: {prob: 0.5}}"))
    assert [dict(cell.runs[0].options) for cell in sweep.cells] == [{}, {"prob": 0.5}]


def test_options_of_a_row_win_over_a_recipes_and_these_over_earlier_recipes(load):
    methods = "{cutmix: , c2: {method: cutmix, prob: 0.9}, c3: {method: cutmix, recipe: laid}}"
    sweep = load(AXES.format(methods=methods, options="{cutmix: {prob: 0.5, alpha: 2.0}}"))
    assert [dict(cell.runs[0].options)["prob"] for cell in sweep.cells] == [0.5, 0.9, 0.7]
    assert {dict(cell.runs[0].options)["alpha"] for cell in sweep.cells} == {2.0}


def test_options_of_a_row_put_back_a_default_that_a_recipe_changed(load):
    sweep = load(AXES.format(methods="{cutmix: {prob: 1.0}}", options="{cutmix: {prob: 0.5}}"))
    assert sweep.cells[0].runs[0].options == ()


def test_rows_are_labelled_by_their_mixer_unless_they_say_otherwise(load):
    sweep = load(AXES.format(methods="{cutmix: , b: {method: mixup, label: B}}", options="{}"))
    assert (sweep.labels["cutmix"], sweep.labels["b"]) == ("CutMix", "B")


def test_columns_are_labelled_by_their_recipe_else_by_data_and_model(load):
    text = """
settings: [digits/tiny, {digits/tiny: plain}, {digits/tiny: named}, {digits/tiny: [named, plain]}, digits/resnet8]
methods: [simple]
seeds: [0]
recipes: {digits/tiny: {epochs: 1, label: Mine}, digits/resnet8: {epochs: 1}, plain: {lr: 1}, named: {label: Named}}
"""
    sweep = load(text)
    assert [sweep.labels[column] for column in sweep.columns] == [
        "Mine",
        "Mine + plain",
        "Named",
        "Named",
        "Digits, resnet8",
    ]


def test_cells_stand_row_by_row_with_one_run_a_seed(load):
    text = LINKED.format(row="{}, simple: {}", link="{method: simple}").replace("[4]", "[3, 1]")
    cells = load(text).cells
    assert [(cell.row, cell.column) for cell in cells] == [
        ("softmax_cam", "digits/tiny + laid"),
        ("softmax_cam", "digits/resnet8"),
        ("simple", "digits/tiny + laid"),
        ("simple", "digits/resnet8"),
    ]
    assert {tuple(run.seed for run in cell.runs) for cell in cells} == {(3, 1)}


def test_resources_are_those_of_each_run_and_of_no_identity(load):
    text = """
settings: [digits/tiny, {digits/tiny: often}]
methods: [softmax_cam]
seeds: [0]
teacher: {method: simple, recipe: rarely}
recipes:
  digits/tiny: {epochs: 1, evaluate_every: 5}
  often: {evaluate_every: 2, checkpoint_seconds: 1, lr: 0.5}
  rarely: {evaluate_every: 9}
"""
    sweep = load(text)
    plain, often = (cell.runs[0] for cell in sweep.cells)
    assert [sweep.resources[run].evaluate_every for run in (plain, often, plain.teacher)] == [5, 2, 9]
    assert [sweep.resources[run].checkpoint_seconds for run in (plain, often)] == [30.0, 1.0]
    assert "evaluate_every" not in str(plain.to_dict())


def test_reserved_words_of_rows_and_links_are_no_options():
    options = {option for name in catalog.names() for option in catalog.declaration(name).options}
    assert not options & {*ROW_KEYS, *LINK_KEYS}


OWN = """
settings: ["image_folder:{path}/resnet8"]
methods: [simple]
seeds: [0]
recipes: {{"image_folder:{path}/resnet8": {{epochs: 1, batch_size: 4, image_size: 16}}}}
"""


@pytest.fixture
def flowers(tmp_path):
    """A folder of ten training and four test images of two classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "flowers"
    for part, count in (("train", 5), ("val", 2)):
        for name in ("rose", "tulip"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def test_own_folder_is_known_by_its_content_and_not_by_its_place(load, flowers):
    below = load(OWN.format(path="flowers"))
    absolute = load(OWN.format(path=flowers))
    assert below.cells[0].runs == absolute.cells[0].runs
    (run,) = below.cells[0].runs
    assert run.dataset == "image_folder:flowers"
    assert run.content
    assert run.image_size == 16


def test_own_folder_is_found_again_by_its_content(load, flowers):
    sweep = load(OWN.format(path=flowers))
    assert sweep.places == {sweep.cells[0].runs[0].content: str(flowers)}
    assert sweep.labels[sweep.columns[0]] == "flowers, resnet8"


def test_own_folder_is_another_experiment_once_an_image_changes(load, flowers):
    before = load(OWN.format(path="flowers")).cells[0].runs[0]
    Image.new("RGB", (20, 20), "red").save(flowers / "train" / "rose" / "0.png")
    assert load(OWN.format(path="flowers")).cells[0].runs[0].id != before.id


def test_own_folder_with_fewer_images_than_a_batch_is_refused(load, flowers):
    with pytest.raises(ValueError, match="batch_size is 11, but there are 10 training images"):
        load(OWN.format(path="flowers").replace("batch_size: 4", "batch_size: 11"))


def test_own_folder_needs_a_size(load, flowers):
    with pytest.raises(ValueError, match="image_size is None"):
        load(OWN.format(path="flowers").replace(", image_size: 16", ""))


def test_own_folder_that_is_not_there_is_named(load):
    with pytest.raises(ValueError, match=r"s\.yaml: simple: .*nowhere is not there"):
        load(OWN.format(path="nowhere"))


def test_every_recipe_of_the_project_can_be_laid_and_names_what_exists(load):
    recipes = Recipes(SWEEPS / "s.yaml", {})
    assert [recipes.find(name).name for name in recipes.names()] == recipes.names()
    assert "digits/tiny" in recipes.names()


def test_skipped_cells_are_no_cells_and_print_as_nothing(tmp_path, mixbench):
    (tmp_path / "one.yaml").write_text(
        "settings: [digits/tiny, {digits/tiny: long}]\nmethods: [simple, mixup]\nseeds: [0]\n"
        "skip: [[mixup, digits/tiny + long]]\nrecipes: {digits/tiny: {epochs: 2}, long: {epochs: 3}}\n"
    )
    sweep = load_sweep(tmp_path / "one.yaml", data=tmp_path, results=tmp_path)
    assert [(cell.row, cell.column) for cell in sweep.cells] == [
        ("simple", "digits/tiny"),
        ("simple", "digits/tiny + long"),
        ("mixup", "digits/tiny"),
    ]
    row = next(line for line in mixbench("report", "one.yaml").out.splitlines() if line.startswith("| Mixup"))
    assert [cell.strip() for cell in row.split("|")] == ["", "Mixup", "–", "", ""]


SEEDED = """
settings: [digits/tiny]
methods: [simple, softmax_cam, transformmix]
seeds: [SEEDS]
teacher: {method: simple, TEACHER}
policy: {recipe: short, POLICY}
recipes:
  digits/tiny: {epochs: 4}
  short: {task: search, epochs: 2}
"""


@pytest.mark.parametrize("teacher", ["", "seed: 0"])
@pytest.mark.parametrize("policy", ["", "seed: 1"])
def test_run_of_a_later_seed_is_the_one_that_a_sweep_of_that_seed_alone_has(teacher, policy, load):
    text = SEEDED.replace("TEACHER", teacher).replace("POLICY", policy)
    every, alone = load(text.replace("SEEDS", "2, 0, 1")), load(text.replace("SEEDS", "1"))
    assert [cell.runs[2] for cell in every.cells] == [cell.runs[0] for cell in alone.cells]
    assert [cell.runs[2].id for cell in every.cells] == [cell.runs[0].id for cell in alone.cells]


def test_runs_of_all_seeds_have_their_resources_and_hours(load):
    sweep = load(
        "settings: [digits/tiny]\nmethods: [softmax_cam]\nseeds: [0, 1]\nteacher: {method: simple}\n"
        "recipes: {digits/tiny: {epochs: 4, evaluate_every: 2, hours: 8.0}}"
    )
    runs = [one for run in sweep.cells[0].runs for one in (run, run.teacher)]
    assert [sweep.resources[run].evaluate_every for run in runs] == [2] * 4
    assert [sweep.hours[run] for run in runs] == [pytest.approx(8.0)] * 4
