"""What the paper reports, as data."""

import csv
import os
from pathlib import Path

import pytest

from analysis.paper import Claim, Key, load

ROOT = Path(__file__).resolve().parent.parent
PAPER = ROOT / "results" / "paper.csv"
REFERENCE = Path(os.environ.get("MIXBENCH_SHARED", ROOT.parent / "shared")) / "paper" / "reference.csv"


@pytest.fixture(scope="module")
def claims():
    return load(PAPER)


def test_paper_holds_every_number_that_was_read_from_the_paper():
    if not REFERENCE.exists():
        pytest.skip(f"there is no {REFERENCE}")
    with REFERENCE.open(newline="") as theirs, PAPER.open(newline="") as ours:
        expected, found = list(csv.reader(theirs, strict=True)), list(csv.reader(ours, strict=True))
    assert [row[:10] for row in found] == [row[:10] for row in expected]  # all but the words of the notes
    assert [bool(row[10]) for row in found] == [bool(row[10]) for row in expected]


def test_paper_holds_231_numbers_of_eleven_tables(claims):
    assert len(claims) == 231
    assert {key.table for key in claims} == {str(number) for number in range(1, 12)}


@pytest.mark.parametrize(
    ("key", "number"),
    [
        (("1", "transformmix", "fgvc_aircraft", "resnet50", "", "top5"), (93.47, 0.39, 5)),
        (("2", "transformmix", "cifar100", "wrn28_10", "", "top1"), (84.07, 0.05, 3)),
        (("2", "puzzlemix", "tiny_imagenet", "preactresnet18", "", "top5"), (81.05, None, None)),
        (("3", "saliencymix", "voc0712", "fasterrcnn_resnet50", "", "map"), (75.3, None, None)),
        (("4", "supermix", "imagenet", "", "", "time_ratio"), (18.51, None, None)),
        (("6", "transformmix_k3", "tiny_imagenet", "preactresnet18", "", "top1"), (66.03, None, None)),
        (("8", "transformmix", "cifar10", "wrn28_10", "", "top1"), (97.21, 0.016, None)),
        (("9", "automix", "tiny_imagenet", "resnet18", "", "top1"), (67.33, None, None)),
        (("11", "mixup", "cifar100", "shufflenet_v1", "supermix", "top1"), (77.44, None, None)),
    ],
)
def test_paper_gives_the_number_that_is_printed(claims, key, number):
    claim = claims[Key(*key)]
    assert (claim.value, claim.std, claim.n) == number


def test_paper_has_no_number_where_the_paper_prints_a_dash(claims):
    assert Key("2", "supermix", "cifar100", "wrn28_10", "", "top1") in claims
    assert Key("2", "supermix", "cifar100", "wrn28_10", "", "top5") not in claims


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (("1", "transformmix", "oxford_pets", "resnet50", "", "top1"), "section 4.2"),
        (("4", "transformmix", "imagenet", "", "", "time_ratio"), "4x to 18x"),
        (("5", "mixup", "tiny_imagenet", "preactresnet18", "", "top1"), "swapped"),
        (("5", "lr", "tiny_imagenet", "preactresnet18", "", "top1"), "swapped"),
        (("6", "transformmix_k2", "tiny_imagenet", "preactresnet18", "", "top5"), "85.01"),
    ],
)
def test_paper_notes_where_the_paper_contradicts_itself(claims, key, said):
    assert said in claims[Key(*key)].note


def test_paper_tells_quoted_numbers_from_its_own(claims):
    place = ("cifar100", "wrn28_10", "", "top1")
    assert claims[Key("2", "puzzlemix", *place)].source.startswith("Kim et al. 2020")
    assert claims[Key("2", "transformmix", *place)].source == "this paper"


def test_claim_prints_as_the_table_does_but_never_with_fewer_digits_than_the_paper():
    assert f"{Claim(84.07, 0.05, 3, '', ''):.2f}" == "84.07 ± 0.05"
    assert f"{Claim(96.9, 0.016, None, '', ''):.2f}" == "96.90 ± 0.016"
    assert f"{Claim(84.05, None, None, '', ''):.1f}" == "84.05"


def test_load_of_an_absent_file_is_nothing(tmp_path):
    assert load(tmp_path / "paper.csv") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2,mixup,cifar100,wrn28_10,,top1,81.73,,,Kim, et al.,", "line 2: it has 12 fields and must have 11"),
        ("2,mixup,cifar100,wrn28_10,,top1,eighty,,,Kim,", "line 2: could not convert"),
        ('2,mixup,cifar100,wrn28_10,,top1,81.73,,,Kim,"cut', "line 2: unexpected end of data"),
    ],
)
def test_load_names_a_line_that_is_not_as_it_must_be(tmp_path, line, said):
    path = tmp_path / "paper.csv"
    path.write_text(f"{PAPER.read_text().splitlines()[0]}\n{line}\n")
    with pytest.raises(ValueError, match=said):
        load(path)


def test_load_refuses_two_numbers_for_one_place(tmp_path):
    path = tmp_path / "paper.csv"
    head, first, *_ = PAPER.read_text().splitlines()
    path.write_text("\n".join([head, first, first]))
    with pytest.raises(ValueError, match="line 3: there is a number for 1, simple, flowers102, resnet50, top1 already"):
        load(path)


def test_load_refuses_a_table_of_other_columns(tmp_path):
    path = tmp_path / "paper.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="line 1: its first line must be table,method"):
        load(path)
