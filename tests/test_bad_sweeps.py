"""What a sweep file can say wrong: one sentence that names file, key and value, and says what would be right."""

import re

import pytest

METHODS = "methods: [simple, mixup, softmax_cam]"
TEACHER = "teacher: {method: simple}"
SWEEP_HAS = "a sweep has: settings, methods, seeds, skip, set, teacher, policy, bank, table, recipes"

DESCRIPTIONS = {
    "unknown method": (
        "mixup",
        "mixupp",
        r"methods: mixupp: there is no method 'mixupp'; there are: .*mixup, puzzlemix",
    ),
    "unknown data set": (
        "digits/",
        "digitz/",
        r"settings: 'digitz/tiny': there is no data set 'digitz'; there are: digits, cif",
    ),
    "unknown model": (
        "/tiny",
        "/tinny",
        "settings: 'digits/tinny': there is no model 'tinny'; there are: tiny, resnet8",
    ),
    "skip without cells": ("seeds:", "skip: [mixup]\nseeds:", r"skip must be a list of cells, \[row, setting\] each"),
    "skip of a cell that is not there": (
        "seeds:",
        "skip: [[mixupp, digits/tiny]]\nseeds:",
        r"skip: there is no cell \[mixupp, digits/tiny\]; rows: simple, mixup, softmax_cam; columns: digits/tiny",
    ),
    "skip of all cells of a row": ("seeds:", "skip: [[mixup, digits/tiny]]\nseeds:", "skip leaves nothing of mixup"),
    "setting without a slash": ("[digits/tiny]", "[digits]", "settings: 'digits' is no setting; write dataset/model"),
    "model with a slash": (
        "digits/tiny",
        "digits/a/tiny",
        "settings: 'digits/a/tiny': there is no data set 'digits/a'",
    ),
    "milestones that a shorter training does not reach": (
        "recipes:\n  digits/tiny: {epochs: 2, batch_size: 50, schedule: cosine",
        "set: {epochs: 2}\nrecipes:\n  digits/tiny: {epochs: 9, batch_size: 50, milestones: [1, 4]",
        r"simple: milestones go to 4, but epochs is 2: nothing is left .* below 2, or none: milestones: \[\]$",
    ),
    "unknown recipe": (
        "[digits/tiny]",
        "[{digits/tiny: slow}]",
        "there is no recipe 'slow'; write it under 'recipes:'",
    ),
    "setting without a recipe": (
        "digits/tiny",
        "digits/resnet8",
        "there is no recipe for the setting 'digits/resnet8'",
    ),
    "unknown key of the sweep": ("seeds:", "seed:", f"unknown key 'seed'; {SWEEP_HAS}"),
    "unknown key of a row": (
        METHODS,
        "methods: {mixup: {labell: x}}",
        "methods: mixup: method 'mixup' has no option labell; its options: alpha=1.0.*; other keys here: label, method",
    ),
    "unknown option": (
        METHODS,
        "methods: {mixup: {alhpa: 1.0}}",
        "method 'mixup' has no option alhpa; its options: alpha=1.0",
    ),
    "unknown key of a recipe": ("epochs:", "epoch:", "recipe 'digits/tiny': unknown key 'epoch'; known keys: .*epochs"),
    "unknown key of the table": (
        "recipes:",
        "table: {captoin: x}\nrecipes:",
        "table: unknown key 'captoin'; known keys: caption",
    ),
    "unknown key of a link": (
        TEACHER,
        "teacher: {method: simple, sed: 1}",
        "teacher: method 'simple' has no option sed; .*: setting, seed",
    ),
    "unknown key of a link without method": (
        TEACHER,
        "teacher: {methud: simple}",
        "teacher: method 'softmax_cam' has no option methud; .*method",
    ),
    "unknown key of set": (
        TEACHER,
        TEACHER + "\nset: {learning_rate: 1.0}",
        "set: unknown key 'learning_rate'; known keys: .*lr,",
    ),
    "unknown key of a row's set": (METHODS, "methods: {mixup: {set: {seed: 1}}}", "methods: mixup: unknown key 'seed'"),
    "unknown key of a link's set": (
        TEACHER,
        "teacher: {method: simple, set: {x: 1}}",
        "teacher: unknown key 'x'; known keys",
    ),
    "recipe's options of an unknown method": (
        "epochs: 2",
        "epochs: 2, options: {mixupp: {}}",
        "recipe 'digits/tiny': there is no method 'mixupp'",
    ),
    "recipe's unknown option": (
        "epochs: 2",
        "epochs: 2, options: {mixup: {a: 1}}",
        "recipe 'digits/tiny': method 'mixup' has no option a; its options: alpha",
    ),
    "text for a number": (
        "epochs: 2",
        "epochs: 2, lr: 1e-4",
        r"recipe 'digits/tiny': lr must be a number, not '1e-4' \(to YAML that is text: write 1.0e-04\)",
    ),
    "text for an option's number": (
        METHODS,
        "methods: {mixup: {alpha: 2e-1}}",
        r"mixup: alpha must be a number, not '2e-1' .*write 2.0e-01",
    ),
    "no epochs": ("epochs: 2, ", "", "the recipe for digits/tiny does not say how many epochs; add 'epochs:' to it"),
    "epochs 0": ("epochs: 2", "epochs: 0", "recipe 'digits/tiny': epochs must be 1 or more, not 0"),
    "epochs -1": ("epochs: 2", "epochs: -1", "recipe 'digits/tiny': epochs must be 1 or more, not -1"),
    "epochs true": ("epochs: 2", "epochs: true", "epochs must be a whole number, not True"),
    "epochs half": ("epochs: 2", "epochs: 2.5", "epochs must be a whole number, not 2.5"),
    "lr nan": ("epochs: 2", "epochs: 2, lr: .nan", "lr must be a finite number, not nan"),
    "lr inf": ("epochs: 2", "epochs: 2, lr: .inf", "lr must be a finite number, not inf"),
    "lr too large for a float": ("epochs: 2", f"epochs: 2, lr: 1{'0' * 400}", "lr must be a finite number, not inf"),
    "option nan": (METHODS, "methods: {mixup: {alpha: .nan}}", "mixup: alpha must be a finite number, not nan"),
    "option null": (METHODS, "methods: {mixup: {alpha: null}}", "mixup: alpha must be a number, not None"),
    "option a mapping": (METHODS, "methods: {mixup: {alpha: {a: 1}}}", "mixup: alpha must be a number, not {'a': 1}"),
    "options that both vary": (
        METHODS,
        "methods: {cutmix: {alpha: [1, 2], prob: [0.1, 1]}}",
        "methods: cutmix: alpha and prob both have a list of values; a row can vary one",
    ),
    "seed twice": ("[0, 1]", "[0, 1, 0]", "seeds: 0 stands there twice; leave one out"),
    "negative seed": ("[0, 1]", "[0, -1]", "seeds: seed must be 0 or more, not -1"),
    "no seeds": ("[0, 1]", "[]", r"'seeds:' must be a list with at least one entry, not \[\]"),
    "seeds a number": ("[0, 1]", "3", "'seeds:' must be a list with at least one entry, not 3"),
    "seed null": ("[0, 1]", "[0, null]", "seeds: seed must be a whole number, not None"),
    "settings text": (
        "[digits/tiny]",
        "digits/tiny",
        "'settings:' must be a list with at least one entry, not 'digits/tiny'",
    ),
    "setting with recipe null": (
        "[digits/tiny]",
        "[{digits/tiny: }]",
        "settings: the recipe of digits/tiny must be text, not None",
    ),
    "setting twice": ("[digits/tiny]", "[digits/tiny, digits/tiny]", "settings: digits/tiny stands there twice"),
    "methods text": (METHODS, "methods: simple", "'methods:' must be a list with at least one entry, not 'simple'"),
    "method twice": (METHODS, "methods: [mixup, mixup]", "methods: mixup stands there twice; .* name of its own"),
    "option's value twice": (
        METHODS,
        "methods: {mixup: {alpha: [2, 2]}}",
        r"methods: mixup\[alpha=2\] stands there twice",
    ),
    "method a number": (METHODS, "methods: [1]", "methods: a name must be text, not 1"),
    "row a number": (METHODS, "methods: {mixup: 1}", "methods: mixup: 1 stands where keys and values are expected"),
    "label a number": (METHODS, "methods: {mixup: {label: 1}}", "methods: mixup: label must be text, not 1"),
    "row's method null": (METHODS, "methods: {mixup: {method: }}", "methods: mixup: method must be text, not None"),
    "row's recipe a list": (
        METHODS,
        "methods: {mixup: {recipe: [x]}}",
        r"methods: mixup: recipe must be text, not \['x'\]",
    ),
    "row's recipe 0": (METHODS, "methods: {mixup: {recipe: 0}}", "methods: mixup: recipe must be text, not 0"),
    "row's recipe empty": (METHODS, "methods: {mixup: {recipe: ''}}", "there is no recipe ''"),
    "set a list": (TEACHER, TEACHER + "\nset: [1]", r"set: \[1\] stands where keys and values are expected"),
    "table a list": (TEACHER, TEACHER + "\ntable: [1]", r"table: \[1\] stands where keys and values are expected"),
    "table compares with no row": (
        TEACHER,
        TEACHER + "\ntable: {compare: lr}",
        "table: compare names no row: 'lr'; rows: simple, mixup",
    ),
    "recipes a list": (
        "recipes:\n  digits/tiny:",
        "recipes:\n - digits/tiny:",
        "recipes: .* stands where keys and values are expected",
    ),
    "recipe a number": (
        "{epochs: 2, batch_size: 50, schedule: cosine, pad: 1, flip: false, train_images: 100}",
        "7",
        "recipe 'digits/tiny': 7 stands where keys",
    ),
    "method in a recipe": ("epochs: 2", "epochs: 2, method: mixup", "recipe 'digits/tiny': unknown key 'method'"),
    "unknown schedule": ("cosine", "cosinus", "schedule is one of step, cosine, constant, not 'cosinus'"),
    "evaluate_every 0": ("epochs: 2", "epochs: 2, evaluate_every: 0", "evaluate_every must be 1 or more, not 0"),
    "no link": (
        TEACHER + "\n",
        "",
        "softmax_cam needs a teacher; say which with 'teacher:', like teacher: {method: simple}",
    ),
    "link to an unknown method": (TEACHER, "teacher: {method: nobody}", "teacher: there is no method 'nobody'"),
    "link to an unknown setting": (
        TEACHER,
        "teacher: {method: simple, setting: digits/x}",
        "teacher: setting: 'digits/x': there is no model 'x'",
    ),
    "link to a setting without recipe": (
        TEACHER,
        "teacher: {method: simple, setting: digits/resnet8}",
        "no recipe for the setting 'digits/resnet8'",
    ),
    "link to an unknown recipe": (TEACHER, "teacher: {method: simple, recipe: x}", "there is no recipe 'x'"),
    "link to itself": (
        TEACHER,
        "teacher: {}",
        "softmax_cam -> teacher softmax_cam leads back to itself; name another run",
    ),
    "link in a circle": (
        TEACHER,
        "teacher: {method: softmax_cam, seed: 1, teacher: {method: softmax_cam, seed: 0}}",
        "leads back to itself; name another run",
    ),
    "link null": (TEACHER, "teacher: ", "leads back to itself"),
    "link text": (
        TEACHER,
        "teacher: simple",
        "teacher: 'simple' stands where keys and values are expected, like {key: value}",
    ),
    "link's seed text": (
        TEACHER,
        "teacher: {method: simple, seed: a}",
        "teacher: seed must be a whole number, not 'a'",
    ),
    "link's seed negative": (TEACHER, "teacher: {method: simple, seed: -1}", "teacher: seed must be 0 or more, not -1"),
    "link's recipe a mapping": (
        TEACHER,
        "teacher: {method: simple, recipe: {a: 1}}",
        "teacher: recipe must be text, not {'a': 1}",
    ),
    "policy that no search makes": (
        METHODS,
        "methods: {transformmix: {policy: {recipe: digits/tiny}}}",
        "transformmix: policy: transformmix is asked for with task: classify, but a policy comes of task: search",
    ),
    "run's field for an option of a link": (
        METHODS,
        "methods: {transformmix: {policy: {method: transformmix, momentum: 0.0}}}",
        "has no option momentum; it is a field of the run: set: {momentum: ...}; its options: k=2",
    ),
    "link to a run of another task": (
        TEACHER,
        "teacher: {method: transformmix, set: {task: search}, teacher: {method: simple}}",
        "softmax_cam: teacher: transformmix is asked for with task: search, but a teacher comes of task: classify",
    ),
    "batch larger than the data": (
        "batch_size: 50",
        "batch_size: 101",
        "batch_size is 101, but there are 100 training images; make it smaller",
    ),
    "too many training images": (
        "train_images: 100",
        "train_images: 1001",
        "train_images is 1001, but Digits has 1000",
    ),
    "too many test images": ("train_images: 100", "test_images: 798", "test_images is 798, but Digits has 797"),
    "pad as large as the image": ("pad: 1", "pad: 8", "pad is 8; it must be less than the image's 8 pixels"),
    "mean of other channels": (
        "epochs: 2",
        "epochs: 2, mean: [0, 0], std: [1, 1]",
        "mean has 2 numbers, but Digits has 1 channels",
    ),
    "image_size of known data": ("epochs: 2", "epochs: 2, image_size: 16", "image_size is for own image folders"),
    "rows of unlike recipes": (
        METHODS,
        "methods: {simple: , mixup: {set: {lr: 1}}}",
        r"column digits/tiny: .* differ in lr \(0.1 and 1.0\)",
    ),
    "option's wrong word": (
        METHODS,
        "methods: {wo_stn: {mask: leaned}}",
        "wo_stn: mask of method 'wo_stn' is one of learned, softmax_cam, not 'leaned'",
    ),
    **{
        f"wrong class of the maps of {method}": (
            METHODS,
            f"methods: {{{method}: {{cam_class: predicted}}}}",
            f"cam_class of method '{method}' is one of label, prediction, not 'predicted'",
        )
        for method in ("softmax_cam", "transformmix", "wo_mpn", "wo_stn")
    },
    "method named like a path": ("mixup", "../x", r"there is no method '\.\./x'"),
    "method in another script": ("mixup", "mélange", "there is no method 'mélange'"),
    "method of two lines": ("mixup", '"mix\\nup"', "there is no method 'mix up'"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_sweep_that_is_wrong_is_refused_in_one_sentence(case, refused, tiny):
    old, new, sentence = DESCRIPTIONS[case]
    text = tiny.read_text()
    assert old in text
    tiny.write_text(text.replace(old, new, 1), encoding="utf-8")
    said = refused("run", tiny)
    assert said.startswith(f"{tiny}: ")
    assert re.search(sentence, said)
