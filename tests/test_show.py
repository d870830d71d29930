"""`mixbench show`: what stands in its figures, whose it is, and what is refused."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from analysis import figures
from analysis.figures import Block, Panel, Picture, Row
from analysis.mixes import mix_by_policy, set_up
from analysis.panels import SHARES, TEMPERATURES, coefficients, parts, temperatures
from analysis.sources import Wanted, checked_setting, sources
from mixbench.data.read import class_names
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.worker import execute

SIMPLE = Run(
    method="simple", dataset="digits", model="tiny", epochs=20, batch_size=50, pad=1, flip=False, train_images=200
)
CAM = replace(SIMPLE, method="softmax_cam", teacher=SIMPLE, epochs=1)
SEARCH = replace(SIMPLE, task="search", method="transformmix", teacher=SIMPLE, lr=5e-3, weight_decay=0.01)
THREE = replace(SEARCH, options=(("k", 3),), seed=1, epochs=1)
AUTOMIX = replace(SIMPLE, method="automix", options=(("momentum", 0.5),))
ADDING = replace(SEARCH, method="wo_mpn", epochs=1, lr=5e-4)

SHOWN = ("show", "--setting", "digits/tiny", "--out", "shown.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder in which a teacher, searches and a network have been trained; to be read only."""
    store = Store(tmp_path_factory.mktemp("trained") / "results", tell=print)
    for run in (SIMPLE, CAM, SEARCH, THREE, ADDING, AUTOMIX):
        with store.claim(run, Execution()) as attempt:
            execute(run, attempt, store, Execution(), print)
    return store


@pytest.fixture
def scene(trained):
    """Sets up methods with the runs of a seed."""

    def made(*methods, seed=0, count=2, named=()):
        found = sources(Wanted(methods, "digits/tiny", seed, named), trained)
        return set_up(found, Execution(), trained, count=count, seed=0)

    return made


def labels(panel):
    return [[row.label for row in block.rows] for block in panel.blocks]


def pixels(row):
    return [picture.pixels for picture in row.pictures if picture is not None]


def test_parts_have_the_rows_of_the_papers_figures(scene):
    panel = parts(scene("mixup", "transformmix", count=3))
    assert labels(panel) == [
        ["input 1", "input 2"],
        ["result"],
        ["CAM 1", "CAM 2", "moved 1", "moved 2", "mask 1", "mask 2", "result"],
    ]
    assert {len(row.pictures) for block in panel.blocks for row in block.rows} == {3}
    assert [block.title.split(",")[0] for block in panel.blocks] == ["Test images of digits", "Mixup", "TransformMix"]


def test_a_collapsed_search_is_named_as_one_below_its_picture(scene):
    (caption,) = [line for line in parts(scene("transformmix", seed=1)).caption if THREE.folder in line]
    assert "the search has collapsed" in caption
    assert "collapsed" not in " ".join(parts(scene("transformmix")).caption)


def test_parts_leave_out_what_a_method_does_not_have(scene):
    assert labels(parts(scene("wo_mpn")))[1] == ["CAM 1", "CAM 2", "moved 1", "moved 2", "result, clipped"]


def test_mixes_of_three_stand_beside_mixes_of_the_first_two(scene, trained):
    panel = parts(scene("transformmix", "mixup", named=[THREE.id]))
    inputs, three, two = panel.blocks
    assert [len(block.rows) for block in panel.blocks] == [3, 10, 1]
    assert "k = 3" in three.title
    assert [len(picture.below.splitlines()) for picture in three.rows[-1].pictures] == [3, 3]
    for first, second, result in zip(*map(pixels, inputs.rows[:2]), pixels(two.rows[0]), strict=True):
        low, high = np.minimum(first, second), np.maximum(first, second)
        assert ((low - 1e-6 <= result) & (result <= high + 1e-6)).all()


@pytest.mark.parametrize("method", ["mixup", "cutmix", "lr", "softmax_cam", "transformmix", "automix"])
def test_every_method_mixes_the_images_that_are_shown(scene, method):
    shown = scene(method, "simple", count=8)
    inputs, mixed, unmixed = parts(shown).blocks
    assert np.array_equal(pixels(inputs.rows[0]), pixels(unmixed.rows[0]))  # simple: image 1 and nothing else
    pairs = zip(pixels(inputs.rows[0]), pixels(mixed.rows[-1]), strict=True)
    assert sum(not np.array_equal(first, one) for first, one in pairs) >= 6  # a box may paste black on black
    for batch, picture in zip(shown.batches, mixed.rows[-1].pictures, strict=True):
        weights = dict(line.split(": ") for line in picture.below.splitlines())
        assert list(weights) == [str(label) for label in batch.y.argmax(1).tolist()]
        assert sum(map(float, weights.values())) == pytest.approx(1, abs=0.011)


def test_mixer_that_learned_beside_a_network_is_shown_as_it_had_become(scene, trained):
    (shown,) = scene("automix").methods
    learned = torch.load(io.BytesIO(trained.read_mixer(AUTOMIX)), weights_only=True)
    assert all(torch.equal(value, learned[name]) for name, value in shown.mixer.state_dict().items())


def test_mixer_that_learns_beside_a_network_is_not_shown_before_it_did(trained):
    with pytest.raises(ValueError, match=r"no run of automix on digits/tiny with seed 5 has finished in .* does one"):
        sources(Wanted(["automix"], "digits/tiny", 5, ()), trained)


def test_mixer_whose_state_is_damaged_is_not_shown(tmp_path):
    store = Store(tmp_path, tell=print)
    run = replace(AUTOMIX, epochs=1)
    with store.claim(run, Execution()) as attempt:
        execute(run, attempt, store, Execution(), print)
    (store.folder(run) / "mixer-a1.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"automix: what the mixer of {run.folder} learned is not here; delete"):
        set_up(sources(Wanted(["automix"], "digits/tiny", 0, ()), store), Execution(), store, count=1, seed=0)


def test_images_of_a_mix_are_of_different_classes_and_none_comes_twice(scene):
    batches = scene("transformmix", seed=1, count=20).batches
    assert all(len(set(batch.y.argmax(1).tolist())) == 3 for batch in batches)
    assert len(torch.cat([batch.x for batch in batches]).unique(dim=0)) == 60


def test_the_same_seed_draws_the_same_figure(scene):
    one, other = (parts(scene("cutmix", "transformmix")) for _ in range(2))
    for here, there in zip(one.blocks, other.blocks, strict=True):
        for mine, theirs in zip(here.rows, there.rows, strict=True):
            assert np.array_equal(pixels(mine), pixels(theirs))


def test_masks_sum_to_one_and_make_the_result(scene):
    rows = {row.label: np.stack(pixels(row)) for row in parts(scene("transformmix")).blocks[1].rows}
    masks = [rows["mask 1"], rows["mask 2"]]
    np.testing.assert_allclose(sum(masks), 1, atol=1e-6)
    moved = [rows["moved 1"], rows["moved 2"]]
    made = sum(mask[..., None] * image for mask, image in zip(masks, moved, strict=True))
    np.testing.assert_allclose(made, rows["result"], atol=1e-5)


def test_a_shown_mix_is_what_training_makes_of_the_same_draws(scene):
    shown = scene("transformmix").methods[0]
    inputs = scene("transformmix").batches[0]
    shown.mixer.generator = torch.Generator()
    while (draws := shown.mixer.draw(inputs.x)[0]).partners[0].tolist() != [0, 1]:
        pass
    shown.mixer.draw = lambda x: (draws, torch.ones(len(x)))
    trained = shown.mixer(inputs, shown.net)
    mixed = mix_by_policy(shown.mixer, shown.net, inputs, draws.lam[0], draws.z[0])
    torch.testing.assert_close(mixed.x, trained.x[0])
    torch.testing.assert_close(mixed.y, trained.y[0])


def test_masks_follow_lam(scene):
    (block,) = coefficients(scene("transformmix", count=1)).blocks
    assert block.heads == ("input", *(f"λ = {share}" for share in SHARES))
    assert [row.label for row in block.rows] == ["mask 1", "mask 2", "result"]
    first, second = ([mask.mean() for mask in pixels(row)[1:]] for row in block.rows[:2])
    assert first == sorted(first)
    assert second == sorted(second, reverse=True)
    assert first[-1] > first[0] + 0.1
    assert [float(picture.below) for picture in block.rows[0].pictures[1:]] == pytest.approx(first, abs=0.006)


def test_lam_of_a_method_without_masks_shows_moved_images(scene):
    assert labels(coefficients(scene("wo_mpn", count=1))) == [["moved 1", "moved 2", "result, clipped"]]


def test_temperatures_sharpen_the_mask_and_the_learned_one_is_named_and_left(scene):
    shown = scene("transformmix", count=2)
    learned = shown.methods[0].mixer.policy.tau.item()
    block, other = temperatures(shown).blocks
    taus = sorted({*TEMPERATURES, learned}, reverse=True)
    assert [head.split()[2] for head in block.heads[1:]] == [f"{tau:.2g}" for tau in taus]
    assert [head for head in block.heads if "learned" in head] == [f"τ = {learned:.2g}\n(learned)"]
    unsure = [np.abs(mask - 0.5).mean() for mask in pixels(block.rows[0])[1:]]
    assert unsure == sorted(unsure)
    assert shown.methods[0].mixer.policy.tau.item() == learned
    assert not np.array_equal(pixels(block.rows[0]), pixels(other.rows[0]))


def test_each_figure_says_whose_it_is(scene):
    captions = parts(scene("mixup", "softmax_cam", "transformmix")).caption[1:]
    assert captions == (
        "mixup: its default options; it has no finished run of this setting and seed",
        f"softmax_cam: {CAM.folder}, teacher {SIMPLE.folder}",
        f"transformmix: {SEARCH.folder}, teacher {SIMPLE.folder}",
    )


def test_classes_are_called_as_their_data_set_calls_them(tmp_path):
    assert class_names("digits", root=tmp_path) == tuple("0123456789")
    assert class_names("cifar10", root=tmp_path)[3] == "3"
    (tmp_path / "cifar-10-batches-py").mkdir()
    names = [f"kind {number}" for number in range(10)]
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": names, "num_vis": 3072}))
    assert class_names("cifar10", root=tmp_path) == tuple(names)
    meta.write_bytes(pickle.dumps({"label_names": names[1:]}))
    with pytest.raises(ValueError, match="has no 10 names in 'label_names'"):
        class_names("cifar10", root=tmp_path)


# ---- drawing


def test_drawing_has_a_cell_for_each_picture_at_its_place():
    picture = Picture(np.zeros((8, 8, 1), np.float32), "below")
    rows = (Row("one", (picture, None)), Row("two", (picture, picture)))
    (axes,) = figures.draw(Panel((Block("title", rows, heads=("a", "b")),), ("caption",))).axes
    lefts, tops = zip(*((image.get_extent()[0], image.get_extent()[3]) for image in axes.images), strict=True)
    assert lefts[0] == lefts[1] < lefts[2]
    assert tops[0] < tops[1] == tops[2]
    assert {"title", "a", "b", "one", "two", "below", "caption"} <= {text.get_text() for text in axes.texts}


def test_colours_are_grey_for_masks_and_clipped_for_images():
    mask = figures.colours(Picture(np.array([[0.0, 0.5, 1.0]], np.float32)))
    assert mask.tolist() == [[[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]]]
    assert figures.colours(Picture(np.array([[[-1.0, 0.25, 2.0]]], np.float32))).tolist() == [[[0, 0.25, 1]]]


def test_a_map_is_laid_over_its_image():
    image = np.array([[[0.0], [1.0]]], np.float32)
    low, high = (figures.colours(Picture(np.full((1, 2), value, np.float32), over=image))[0] for value in (0.0, 1.0))
    np.testing.assert_allclose(low[1] - low[0], 0.5)
    assert high[0, 0] > low[0, 0]  # what matters is red


# ---- the command


@pytest.mark.parametrize("figure", ["parts", "tau", "lam"])
def test_show_draws_a_picture_and_says_of_which_runs(mixbench, trained, tmp_path, figure):
    out = tmp_path / "figures" / "shown.png"
    words = ("--methods", "transformmix", "--setting", "digits/tiny", "--figure", figure, "--images", 1)
    said = mixbench("show", *words, "--out", out, "--results", trained.root)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [f"transformmix: {SEARCH.folder}, teacher {SIMPLE.folder}", f"drawn: {out}"]
    assert Image.open(out).getbbox() is not None
    assert list(out.parent.iterdir()) == [out]


def test_words_that_look_like_a_formula_are_written_as_they_are(tmp_path):
    picture = Picture(np.zeros((8, 8), np.float32), "$\\frac$: 0.50")
    figures.write(Panel((Block("", (Row("", (picture,)),)),), ()), tmp_path / "shown.svg")
    assert "$\\frac$: 0.50" in (tmp_path / "shown.svg").read_text()


def test_a_temperature_at_its_bound_is_shown_once(scene):
    shown = scene("transformmix", count=1)
    torch.nn.init.zeros_(shown.methods[0].mixer.policy.mask.tau)
    (block,) = temperatures(shown).blocks
    assert block.heads[1:] == ("τ = 1", "τ = 0.5", "τ = 0.2", "τ = 0.01\n(learned)")


@pytest.mark.parametrize(("suffix", "begins"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".PNG", b"\x89PNG")])
def test_show_writes_what_the_suffix_says(tmp_path, suffix, begins):
    panel = Panel((Block("", (Row("", (Picture(np.zeros((8, 8), np.float32)),)),)),), ())
    figures.write(panel, tmp_path / f"shown{suffix}")
    assert (tmp_path / f"shown{suffix}").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--methods nosuch", "--methods: there is no method 'nosuch'; there are: "),
        ("--methods mixup --setting digits", "--setting digits: it must be a data set and a model, like digits/tiny"),
        ("--methods mixup --setting nosuch/tiny", "--setting nosuch/tiny: there is no data set 'nosuch'"),
        ("--methods mixup --out shown.txt", "--out shown.txt: a figure is written as .png, .pdf, .svg"),
        ("--methods mixup --out .", "Invalid value for '--out'"),
        ("--methods mixup --out tiny.yaml/shown.png", "tiny.yaml: "),
        ("--methods mixup --images 400", "make no 400 mixes of 2 classes"),
        ("--methods transformmix --seed 7", "no search of transformmix on digits/tiny with seed 7 has finished"),
        ("--methods softmax_cam --seed 7", "`mixbench run SWEEP` does one"),
        ("--methods transformmix --run nosuch", "no run in "),
        ("--methods transformmix --run SIMPLE", "--run SIMPLE: SIMPLE is not of transformmix on digits/tiny"),
        ("--methods transformmix --run SEARCH --run THREE", "a run of transformmix is named already"),
        ("--methods mixup --figure lam", "--figure lam: mixup has no policy"),
        ("--methods wo_mpn --figure tau", "--figure tau: wo_mpn has no learned mask"),
        ("--methods mixup --figure tau", "--figure tau: mixup has no learned mask"),
    ],
)
def test_show_refuses_in_one_sentence(mixbench, trained, tmp_path, words, sentence):
    (tmp_path / "tiny.yaml").touch()
    named = {"SIMPLE": SIMPLE.folder, "SEARCH": SEARCH.folder, "THREE": THREE.folder}
    for name, folder in named.items():
        words, sentence = words.replace(name, folder), sentence.replace(name, folder)
    said = mixbench(*SHOWN, "--results", trained.root, *words.split())
    assert said.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("mixbench: ")
    assert sentence in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_show_of_several_searches_lists_them_and_takes_the_one_named(mixbench, tmp_path, finish):
    searches = [replace(SEARCH, epochs=epochs) for epochs in (3, 4)]
    for run in searches:
        finish(tmp_path / "results", run)
    said = mixbench(*SHOWN, "--methods", "transformmix")
    assert said.code == 2
    folders = ", ".join(sorted(run.folder for run in searches))
    assert f"transformmix has 2 finished runs that mix differently: {folders}; name one with --run" in said.err
    store = Store(tmp_path / "results", tell=print)
    (source,) = sources(Wanted(["transformmix"], "digits/tiny", 0, [searches[1].id]), store)
    assert source.finished == source.run.policy == searches[1]


def test_show_takes_runs_that_differ_only_in_training_for_one(tmp_path, finish):
    runs = [replace(SIMPLE, method="mixup", options=(("alpha", 0.2),), epochs=epochs) for epochs in (3, 4)]
    for run in runs:
        finish(tmp_path, run)
    (source,) = sources(Wanted(["mixup"], "digits/tiny", 0, []), Store(tmp_path, tell=print))
    assert source.finished in runs
    assert dict(source.run.options) == {"alpha": 0.2}


def test_setting_of_an_own_folder_is_its_name_and_its_path(tmp_path):
    setting = checked_setting("image_folder:pictures/flowers/tiny", data=tmp_path)
    assert setting == ("image_folder:flowers/tiny", "pictures/flowers")
    assert checked_setting("digits/tiny", data=tmp_path) == ("digits/tiny", "")


def test_default_options_go_with_the_images_of_the_settings_other_runs(tmp_path, finish):
    known = replace(SIMPLE, dataset="image_folder:flowers", content="c0ffee", image_size=32)
    store = Store(tmp_path, tell=print)
    wanted = Wanted(["mixup"], "image_folder:flowers/tiny", 0, [])
    with pytest.raises(ValueError, match="no run of mixup on image_folder:flowers/tiny with seed 0 has finished"):
        sources(wanted, store)  # nobody knows to which size its images are brought
    finish(tmp_path, known)
    (source,) = sources(wanted, store)
    assert source.finished is None
    assert (source.run.method, source.run.content, source.run.image_size) == ("mixup", "c0ffee", 32)


def test_show_without_the_teachers_weights_says_which_run_lacks(mixbench, tmp_path, finish):
    finish(tmp_path / "results", SEARCH)
    said = mixbench(*SHOWN, "--methods", "transformmix")
    assert said.code == 2
    assert f"transformmix: needs {SIMPLE.folder}, which has not finished" in said.err
