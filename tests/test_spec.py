import dataclasses
import json
import math
import random

import pytest

from mixbench.fields import ABOVE, AT_LEAST, CHOICES, LINKS
from mixbench.plain import cast_to
from mixbench.resolve import load_sweep
from mixbench.spec import Run, as_options, convert

DIGITS = {"dataset": "digits", "model": "tiny", "train_images": 100, "pad": 1, "flip": False}
QUICK = DIGITS | {"epochs": 200, "batch_size": 50, "schedule": "cosine"}

PINNED = {
    "b8ac0328bc": Run(method="simple", **QUICK),
    "da555158ff": Run(method="simple", seed=2, **QUICK),
    "f8838eea7a": Run(method="softmax_cam", teacher=Run(method="simple", **QUICK), **QUICK),
    "d940ec5f7f": Run(
        method="cutmix",
        options=(("prob", 0.5),),
        dataset="cifar10",
        model="resnet8",
        train_images=10_000,
        epochs=10,
        nesterov=True,
        weight_decay=5e-4,
        schedule="cosine",
    ),
    "90a0271944": Run(
        task="classify",
        method="cutmix",
        options=(("alpha", 0.2), ("draw", "sample"), ("prob", 0.5)),
        dataset="image_folder:flowers",
        content="0123456789abcdef",
        image_size=64,
        train_images=500,
        test_images=200,
        model="resnet18",
        seed=7,
        pad=8,
        pad_mode="reflect",
        flip=False,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        epochs=90,
        batch_size=64,
        lr=0.05,
        momentum=0.8,
        nesterov=True,
        weight_decay=5e-4,
        schedule="step",
        milestones=(30, 60),
        lr_drop=0.2,
        lr_end=0.001,
        warmup=5,
        precision="bfloat16",
    ),
    "807137bcae": Run(
        task="import",
        method="simple",
        dataset="cifar10",
        model="resnet20",
        epochs=1,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        checkpoint="0123456789abcdef" * 4,
    ),
    "7ad5e7dfd8": Run(
        method="simple",
        dataset="tiny_imagenet",
        model="preactresnet18",
        epochs=1200,
        batch_size=100,
        lr=0.2,
        nesterov=True,
        milestones=(600, 900),
        criterion="bce",
    ),
}

DEFAULTS = {
    "task": "classify",
    "mini": False,
    "options": (),
    "content": "",
    "image_size": None,
    "train_images": None,
    "test_images": None,
    "seed": 0,
    "augment": "crop",
    "pad": 4,
    "pad_mode": "zeros",
    "flip": True,
    "mean": (),
    "std": (),
    "batch_size": 128,
    "gpus": 1,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-4,
    "schedule": "step",
    "milestones": (),
    "lr_drop": 0.1,
    "lr_end": 0.0,
    "warmup": 0,
    "criterion": "ce",
    "ema": 0.0,
    "precision": "float32",
    "checkpoint": "",
    "teacher": None,
    "policy": None,
    "bank": None,
    "bank_images": 50_000,
    "subjects": (),
    "made_up": False,
    "trials": 0,
    "machine": "",
}


def a_run(**values):
    return Run(**({"method": "simple", "dataset": "digits", "model": "tiny", "epochs": 10} | values))


def random_run(random, depth=0):
    """Any run that may exist; few values a field, so that two are sometimes equal."""
    values = {
        "method": random.choice(["simple", "mixup"]),
        "epochs": random.choice([10, 20]),
        "seed": random.choice([0, 1]),
        "lr": random.choice([0.1, 1, 1.0]),
        "weight_decay": random.choice([0, 0.0, -0.0, 1e-4]),
        "options": random.choice([(), (("alpha", 0.5),), (("alpha", 0.5), ("prob", 1.0))]),
        "mean": random.choice([(), (0.5,), (0.5, 0, 1)]),
        "train_images": random.choice([None, 100]),
        "flip": random.choice([True, False]),
    }
    values["std"] = tuple(1.0 for _ in values["mean"])
    link = random_run(random, depth + 1) if depth < 2 and random.random() < 0.5 else None
    return a_run(**values, teacher=link)


@pytest.mark.parametrize(("pinned", "run"), PINNED.items(), ids=PINNED)
def test_run_id_is_what_it_always_was(pinned, run):
    assert run.id == pinned


def test_run_defaults_are_what_they_always_were():
    found = {field.name: field.default for field in dataclasses.fields(Run)}
    assert {name: value for name, value in found.items() if value is not dataclasses.MISSING} == DEFAULTS


def test_run_needs_to_be_told_only_what_has_no_sensible_default():
    required = {field.name for field in dataclasses.fields(Run) if field.default is dataclasses.MISSING}
    assert required == {"method", "dataset", "model", "epochs"}


def test_run_id_is_ten_hexadecimal_digits():
    assert len(a_run().id) == 10
    assert int(a_run().id, 16) >= 0


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in ("options", *LINKS, "task")])
def test_run_id_does_not_change_when_a_default_is_written_out(name):
    assert a_run(**{name: DEFAULTS[name]}).id == a_run().id


def test_run_id_depends_on_every_field():
    other = {
        "mini": True,
        "method": "mixup",
        "options": (("alpha", 2.0),),
        "dataset": "cifar10",
        "content": "0123456789abcdef",
        "image_size": 64,
        "train_images": 100,
        "test_images": 100,
        "model": "resnet8",
        "seed": 1,
        "augment": "resized_crop",
        "pad": 0,
        "flip": False,
        "epochs": 11,
        "batch_size": 64,
        "gpus": 2,
        "lr": 0.2,
        "momentum": 0.0,
        "nesterov": True,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "milestones": (5,),
        "warmup": 1,
        "criterion": "bce",
        "ema": 0.999,
        "precision": "bfloat16",
        "teacher": a_run(),
        "policy": a_run(),
        "bank": a_run(),
    }
    runs = [a_run(**{name: value}) for name, value in other.items()]
    runs += [a_run(mean=(0.5,), std=(0.5,)), a_run(mean=(0.4,), std=(0.5,)), a_run(mean=(0.5,), std=(0.4,)), a_run()]
    runs += [
        a_run(milestones=(5,), lr_drop=0.2),
        a_run(schedule="cosine", lr_end=0.01),
        a_run(pad=1, pad_mode="reflect"),
    ]
    runs += [a_run(pad=1), a_run(task="bank"), a_run(task="bank", bank_images=10)]
    time = {"task": "time", "subjects": (a_run(),)}
    runs += [a_run(**time), a_run(**{**time, "subjects": (a_run(), a_run(seed=1))}), a_run(**time, machine="a CPU")]
    runs += [a_run(**time, made_up=True), a_run(**time, trials=3)]
    assert len({run.id for run in runs}) == len(runs)
    beside = {"task", "checkpoint", "bank_images", "mean", "std", "lr_drop", "lr_end", "pad_mode"}
    beside |= {"subjects", "made_up", "trials", "machine"}
    assert {*other, *beside} == {field.name for field in dataclasses.fields(Run)}


def test_a_measurement_reads_nothing_that_says_how_to_train_and_comes_back_from_its_dict():
    run = a_run(task="time", subjects=(a_run(), a_run(method="mixup")), lr=0.5, epochs=7)
    assert run == a_run(task="time", subjects=run.subjects, epochs=1)
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_a_measurement_needs_what_its_subjects_ask_once():
    teacher = a_run(seed=3)
    asking = [a_run(method=method, teacher=teacher) for method in ("softmax_cam", "transformmix")]
    run = a_run(task="time", subjects=(a_run(), *asking))
    assert run.needs() == (teacher,)
    assert [link for link, _ in run.links()] == ["softmax_cam -> teacher", "transformmix -> teacher"]


@pytest.mark.parametrize(
    "wrong", [{"task": "time"}, {"subjects": (Run(method="mixup", dataset="d", model="m", epochs=1),)}]
)
def test_a_measurement_has_subjects_and_nothing_else_has(wrong):
    with pytest.raises(ValueError, match="task: time measures subjects, and only that does"):
        a_run(**wrong)


@pytest.mark.parametrize(
    "unread",
    [
        {"lr_drop": 0.5},
        {"lr_end": 0.05},
        {"schedule": "constant"},
    ],
)
def test_run_is_the_same_whatever_is_said_of_what_nothing_reads(unread):
    assert a_run(**unread) == a_run()
    assert a_run(**unread).id == a_run().id


@pytest.mark.parametrize("task", [{"task": "search"}, {"task": "import", "checkpoint": "c" * 64}])
def test_run_that_trains_no_network_has_no_average_of_it(task):
    assert a_run(ema=0.9, **task) == a_run(**task)


def test_run_without_padding_has_no_way_of_padding():
    assert a_run(pad=0, pad_mode="reflect") == a_run(pad=0)


@pytest.mark.parametrize("unread", [{"pad": 2}, {"pad": 0}, {"pad_mode": "reflect"}])
def test_run_with_resized_crops_pads_nothing(unread):
    assert a_run(augment="resized_crop", **unread) == a_run(augment="resized_crop")


def test_run_id_depends_on_every_field_of_what_it_asks():
    runs = [a_run(teacher=None), a_run(teacher=a_run()), a_run(teacher=a_run(seed=1)), a_run(teacher=a_run(lr=0.2))]
    assert len({run.id for run in runs}) == len(runs)


def test_equal_runs_have_equal_ids_and_unlike_ones_have_not():
    rng = random.Random(0)
    runs = [random_run(rng) for _ in range(600)]
    for one, other in zip(runs, runs[1:] + runs[:1], strict=True):
        assert (one == other) == (one.id == other.id)
    assert len(set(runs)) == len({run.id for run in runs}) < len(runs)


def test_to_dict_is_undone_by_from_dict_after_a_trip_through_json():
    rng = random.Random(1)
    for run in [*PINNED.values(), *(random_run(rng) for _ in range(200))]:
        again = Run.from_dict(json.loads(json.dumps(run.to_dict())))
        assert again == run
        assert again.id == run.id


def test_to_dict_leaves_out_what_is_at_its_default():
    assert a_run(lr=0.1).to_dict() == {"method": "simple", "dataset": "digits", "model": "tiny", "epochs": 10}


def test_from_dict_refuses_a_field_that_a_later_version_wrote():
    with pytest.raises(ValueError, match="knows no field dropout of a run; update it"):
        Run.from_dict(a_run().to_dict() | {"dropout": 0.5})


def test_run_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_run().lr = 1.0


def test_run_needs_the_runs_among_its_links():
    teacher = a_run()
    assert a_run(method="softmax_cam", teacher=teacher).needs() == (teacher,)
    assert teacher.needs() == ()


def test_run_folder_tells_method_data_model_and_seed_and_ends_in_the_id():
    run = a_run(seed=3)
    assert run.folder == f"simple-digits-tiny-s3-{run.id}"


@pytest.mark.parametrize("dataset", ["image_folder:flowers", "image_folder:/a/b", "image_folder:../b", "a/b/c"])
def test_run_folder_is_a_single_folder_whatever_the_data_are_called(dataset):
    folder = a_run(dataset=dataset).folder
    assert "/" not in folder
    assert ":" not in folder


SWEEP = """
settings: [digits/tiny]
methods: {{cutmix: {row}}}
seeds: [0]
recipes: {{digits/tiny: {recipe}}}
"""


@pytest.mark.parametrize(
    ("row", "recipe"),
    [
        ("{}", "{epochs: 5, lr: 1}"),
        ("", "{lr: 1.0, epochs: 5}"),
        ("{prob: 1}", "{epochs: 5, lr: 1.0e+0}"),
        ("{draw: batch, alpha: 1.0, prob: 1.0}", "{epochs: 5, lr: 1}"),
        ("{prob: 1.0, alpha: 1, draw: batch}", "{epochs: 5, lr: 1, momentum: 0.9, milestones: [], train_images: null}"),
        ("{alpha: 1}", "{epochs: 5, lr: 1, options: {cutmix: {alpha: 0.3, prob: 1}}}"),
        ("{set: {lr: 1}}", "{epochs: 5, lr: 0.3}"),
        ("{label: Mine}", "{epochs: 5, lr: 1, label: Theirs, evaluate_every: 3, checkpoint_seconds: 5}"),
        ("{recipe: one}", "{epochs: 5}, one: {lr: 1}"),
    ],
)
def test_equal_runs_have_one_id_however_they_are_written(row, recipe, tmp_path):
    path = tmp_path / "written.yaml"
    path.write_text(SWEEP.format(row=row, recipe=recipe))
    (cell,) = load_sweep(path, data=tmp_path, results=tmp_path).cells
    assert cell.runs[0].id == Run(method="cutmix", dataset="digits", model="tiny", epochs=5, lr=1.0).id


def test_as_options_sorts_them_and_makes_lists_hashable():
    assert as_options({"b": [1, [2, 3]], "a": 1.0}) == (("a", 1.0), ("b", (1, (2, 3))))


def test_convert_makes_a_whole_number_of_a_float_field_a_float():
    assert type(convert("lr", 1)) is float
    assert [type(number) for number in convert("mean", [0, 1])] == [float, float]


def test_convert_knows_no_negative_zero():
    assert math.copysign(1, convert("weight_decay", -0.0)) == 1


def test_convert_makes_a_list_a_tuple():
    assert convert("milestones", [10, 20]) == (10, 20)


def test_convert_takes_nothing_where_all_is_meant():
    assert convert("train_images", None) is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("epochs", "5", "epochs must be a whole number, not '5'"),
        ("epochs", 5.0, "epochs must be a whole number, not 5.0"),
        ("epochs", True, "epochs must be a whole number, not True"),
        ("epochs", None, "epochs must be a whole number, not None"),
        ("epochs", [5], r"epochs must be a whole number, not \[5\]"),
        ("ema", 1, "ema must be below 1, not 1.0"),
        ("ema", -0.5, "ema must be 0 or more, not -0.5"),
        ("lr", "fast", "lr must be a number, not 'fast'$"),
        ("lr", True, "lr must be a number, not True"),
        ("lr", {"a": 1}, "lr must be a number, not {'a': 1}"),
        ("lr", None, "lr must be a number, not None"),
        ("lr", "1e-4", r"lr must be a number, not '1e-4' \(to YAML that is text: write 1.0e-04\)"),
        ("lr", "5e-04", r"write 5.0e-04\)"),
        ("lr", "2.5e3", r"write 2.5e\+03\)"),
        ("lr", "nan", "lr must be a number, not 'nan'$"),
        ("lr", "inf", "lr must be a number, not 'inf'$"),
        ("lr", math.nan, "lr must be a finite number, not nan"),
        ("lr", math.inf, "lr must be a finite number, not inf"),
        ("lr", 10**400, "lr must be a finite number, not inf"),
        ("flip", 1, "flip must be true or false, not 1"),
        ("flip", "yes", "flip must be true or false, not 'yes'"),
        ("pad_mode", 0, "pad_mode must be text, not 0"),
        ("milestones", 10, "milestones must be a list of numbers, not 10"),
        ("milestones", "10", "milestones must be a list of numbers, not '10'"),
        ("milestones", [10, 20.0], "milestones must be a whole number, not 20.0"),
        ("mean", [0.5, "x"], "mean must be a number, not 'x'"),
        ("train_images", "all", "train_images must be a whole number, not 'all'"),
    ],
)
def test_convert_refuses_another_type_and_says_which_it_wants(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        convert(name, value)


@pytest.mark.parametrize("name", sorted(AT_LEAST))
def test_convert_refuses_less_than_the_least(name):
    least = AT_LEAST[name]
    wrap = list if name == "milestones" else (lambda values: values[0])
    convert(name, wrap([least]))
    with pytest.raises(ValueError, match=f"^{name} must be {least} or more, not {least - 1}"):
        convert(name, wrap([least - 1]))


@pytest.mark.parametrize("name", sorted(ABOVE))
def test_convert_refuses_zero_where_a_number_must_be_above_it(name):
    wrap = list if name == "std" else (lambda values: values[0])
    convert(name, wrap([1e-9]))
    with pytest.raises(ValueError, match=f"^{name} must be above 0, not 0.0"):
        convert(name, wrap([0.0]))


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_convert_refuses_what_is_no_choice_and_lists_those(name):
    for choice in CHOICES[name]:
        convert(name, choice)
    with pytest.raises(ValueError, match=f"^{name} is one of {', '.join(CHOICES[name])}, not 'other'"):
        convert(name, "other")


def test_every_number_of_a_run_has_a_least_value():
    numbers = {
        field.name
        for field in dataclasses.fields(Run)
        if any(kind in str(field.type) for kind in ("int", "float")) and field.name != "mean"
    }
    assert numbers == {*AT_LEAST, *ABOVE}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"schedule": "cosine", "milestones": [5]}, "milestones belong to schedule: step, but schedule is cosine"),
        ({"milestones": [6, 3]}, r"milestones must ascend, not \[6, 3\]"),
        ({"milestones": [3, 3]}, r"milestones must ascend, not \[3, 3\]"),
        ({"milestones": [5, 10]}, "milestones go to 10, but epochs is 10: nothing is left to train behind it; write "),
        ({"milestones": [11]}, r"milestones go to 11, but epochs is 10: .* write milestones below 10, or none"),
        ({"mean": [0.5]}, "mean has 1 numbers and std 0; give one of each per channel"),
        ({"std": [0.5, 0.5], "mean": [0.1]}, "mean has 1 numbers and std 2"),
        ({"warmup": 10}, "warmup is 10 of 10 epochs; it must be shorter"),
        ({"nesterov": True, "momentum": 0}, "nesterov: true needs a momentum, but momentum is 0.0"),
    ],
)
def test_run_refuses_values_that_contradict_each_other(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        a_run(**values)


def test_cast_to_leaves_whole_numbers_whole():
    assert type(cast_to(int, "k", 2)) is int


def test_links_are_fields_that_hold_runs():
    assert {field.name for field in dataclasses.fields(Run) if str(field.type) == "Run | None"} == set(LINKS)


def test_reseeded_run_is_the_one_that_is_made_with_that_seed():
    teacher, other = a_run(method="simple"), a_run(method="simple", seed=7)
    run = a_run(method="softmax_cam", teacher=teacher, lr=0.3)
    assert len({run, run.id, run.folder}) == 3  # what a run remembers of itself is not handed on
    again = run.reseeded(7, {"teacher": other})
    made = a_run(method="softmax_cam", teacher=other, lr=0.3, seed=7)
    assert (again, hash(again), again.id) == (made, hash(made), made.id)


def test_reseeded_import_is_the_same_run():
    run = a_run(method="simple", task="import", checkpoint="0" * 64)
    assert run.reseeded(3, {}) == run
