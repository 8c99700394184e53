"""The facts of a sample."""

import numpy as np
import pytest

from segjax.data.doctor.samples import examine, image_facts
from segjax.data.sets.folder import open_folder
from segjax.data.source import files_of
from tests.data.drawn import THREE, Around, Broken, Drawn, mask, pairs, uint8

SWAPPED = [1, 0, 2, *[255] * 253]


@pytest.fixture
def folder(tmp_path):
    return open_folder(pairs(tmp_path, "a", ids=[0, 0, 0, 1, 2, 255]), "train", THREE)


def test_facts_of_files_by_hand(folder):
    facts = examine(folder, 0)
    assert (facts.name, facts.size, facts.problems) == ("a", (4, 6), ())
    assert facts.counts.class_pixels.tolist() == [12, 4, 4]
    assert facts.counts.ignored == 4
    assert facts.raw_ids == {0, 1, 2, 255}
    assert facts.image_file.endswith("images/train/a.png")


def test_image_facts_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 51, 0)
    facts = image_facts(image)
    np.testing.assert_allclose(facts["pixel_sums"], [[1, 0.2, 0], [1, 0.04, 0]], atol=1e-12)
    grey = round(0.299 * 255 + 0.587 * 51)  # of one pixel in four
    assert facts["contrast"] == pytest.approx(grey * 3**0.5 / 4)
    assert facts["image_hash"] != image_facts(image.transpose(1, 0, 2)[::-1])["image_hash"]
    five = image_facts(np.concatenate([image, image[..., :2]], axis=2))
    assert five["pixel_sums"].shape == (2, 5)
    np.testing.assert_array_equal(five["thumbnail"], facts["thumbnail"])
    assert image_facts(image[..., :1])["pixel_sums"].shape == (2, 1)


def test_a_source_around_files_is_read_through(folder, tmp_path):
    outer = Around(folder, SWAPPED)
    assert files_of(outer) is folder
    facts = examine(outer, 0)
    assert facts.counts.class_pixels.tolist() == [4, 12, 4], "the outer source's labels"
    mask(tmp_path / "masks/train/a.png", 9)
    facts = examine(outer, 0)
    assert facts.counts.unknown == {9: 24}
    assert [p.code for p in facts.problems] == ["unknown-ids"]
    # A subset is no source of the same samples.
    assert files_of(Around(folder, length=0)) is None
    assert files_of(Drawn([uint8([0])])) is None


def test_one_file_may_have_several_problems(tmp_path):
    mask(pairs(tmp_path, "a") / "masks/train/a.png", 9, 2, 3)
    problems = examine(open_folder(tmp_path, "train", THREE), 0).problems
    assert [p.code for p in problems] == ["unknown-ids", "size-mismatch"]
    (tmp_path / "images/train/a.png").write_bytes(b"")
    (tmp_path / "masks/train/a.png").write_bytes(b"")
    problems = examine(open_folder(tmp_path, "train", THREE), 0).problems
    assert [p.code for p in problems] == ["unreadable", "unreadable"]
    assert all(p.error.remedy == "use an intact image file" for p in problems)


def test_problems_of_sources_without_files():
    class Refusing(Drawn):
        def __getitem__(self, index):
            raise ValueError("record 0 is damaged")

    facts = examine(Drawn([uint8([0, 7, 7])]), 0)
    assert (facts.counts.unknown, facts.problems[0].code) == ({7: 2}, "unknown-ids")
    assert facts.problems[0].error.found.startswith("drawn 0: bad ids 7 (2 pixels)")
    facts = examine(Drawn([np.zeros((2, 3), np.int32)]), 0)
    assert facts.problems[0].code == "bad-sample"
    (problem,) = examine(Refusing([0]), 0).problems
    assert str(problem.error) == "record 0 is damaged; mend the sample or leave it out"
    with pytest.raises(RuntimeError, match="a bug in the source"):
        examine(Broken([0]), 0)
