"""Findings about complete splits, judged by the options of a config."""

import numpy as np
import pytest

from configs import base
from segjax.data.classes import from_names
from segjax.data.doctor import ERROR, INFO, WARNING, diagnose, diagnose_config, paste_lines
from segjax.data.doctor.settings import settings_of
from segjax.data.sets.folder import open_folder
from tests.data.doctor import planted
from tests.data.drawn import THREE, Drawn, pairs, uint8


def noise(mean, std):
    values = np.random.default_rng(0).normal(mean, std, (40, 60, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


USUAL = noise(116, 58)
ALL = np.arange(2400, dtype=np.uint8).reshape(40, 60) % 3  # each class, a third of the pixels


def config_for(image_size=(40, 60), batch_size=1, **data):
    config = base.get_config()
    config.train.batch_size = batch_size
    config.data.update({"image_size": image_size, **data})
    return config


def findings(sources, **options):
    diagnosis = diagnose(sources, config=config_for(**options))
    return {f.code: f for f in diagnosis.findings if not f.code.startswith("duplicates")}


def test_fewer_images_than_a_batch_and_an_empty_split():
    sources = {"train": Drawn([ALL] * 3, image=noise(120, 60)), "val": Drawn([])}
    found = findings(sources, batch_size=8)
    few, empty = found["too-few-images"], found["empty-split"]
    assert few.severity == empty.severity == ERROR
    assert few.found == ("data split 'train' has 3 images but train.batch_size=8",)
    assert few.remedy == "use train.batch_size<=3 or more images"
    assert (few.split, empty.split) == ("train", "val")
    assert "too-few-images" not in findings({"train": sources["train"]}, batch_size=3)


def test_numbers_of_a_split_by_hand():
    labels = [uint8([0, 0, 1, 255]), uint8([0, 255, 255, 255]), uint8([255, 255])]
    numbers = diagnose({"train": Drawn(labels)}).splits["train"]
    assert (numbers.images, numbers.usable, numbers.void_images) == (3, 3, 1)
    assert numbers.class_pixels.tolist() == [3, 1, 0]
    assert numbers.class_images.tolist() == [2, 1, 0]
    assert numbers.present_pixels.tolist() == [8, 4, 0]
    assert (numbers.ignored_pixels, numbers.unknown_pixels) == (6, 0)
    assert numbers.void_share == pytest.approx(0.6)
    assert numbers.sizes == {(1, 4): 2, (1, 2): 1}


def test_void_pixels_and_void_images():
    found = findings({"train": Drawn([uint8([0, 1, 2, 2]), uint8([255, 255, 255, 255])])})
    assert found["void-share"].title == "train: 50.0% of the pixels are ignored"
    assert found["all-void"].samples == (("train", 1),)
    assert found["void-share"].severity == found["all-void"].severity == INFO
    assert not {"void-share", "all-void"} & findings({"train": Drawn([ALL])}).keys()


def test_mean_and_std_are_compared_with_those_used():
    dark = noise(20, 8)
    sources = {"train": Drawn([ALL], image=dark)}
    assert "normalization" not in findings({"train": Drawn([ALL], image=USUAL)})
    finding = findings(sources)["normalization"]
    assert finding.severity == WARNING, "a seventh of the usual deviation"
    paler = {"train": Drawn([ALL], image=noise(160, 58))}
    assert findings(paler)["normalization"].severity == INFO
    mean, std = (dark / 255).mean((0, 1)), (dark / 255).std((0, 1))
    option = ",".join(f"{v:.4f}" for v in mean)
    assert f"'--config.data.mean=({option},)'" in finding.remedy
    assert f"standard deviation {std[0]:.3f}, {std[1]:.3f}" in finding.found[0]
    used = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    assert "normalization" not in findings(sources, **used)
    config = config_for()
    config.init_from = "weights.pth"  # whose numbers are not known here
    assert settings_of(config).mean is None


@pytest.mark.parametrize(
    "image_size, words",
    [
        ((20, 30), None),
        ((10, 15), "shrinks them to 0.25 of their height and width"),
        ((100, 150), "enlarges them 2.5 times"),
        ((40, 120), "50% of the canvas is padding"),
    ],
)
def test_canvas_and_images(image_size, words):
    found = findings({"train": Drawn([ALL], image=USUAL)}, image_size=image_size)
    assert ("canvas-size" in found) == (words is not None)
    if words:
        finding = found["canvas-size"]
        assert words in " ".join(finding.found)
        assert "'--config.data.image_size=(40, 60)'" in finding.remedy
        assert finding.found[0] == "sizes (height x width): 40x60 (1)"


def test_class_imbalance_gives_the_weights_to_paste():
    label = np.zeros((40, 60), np.uint8)
    label[0, :6], label[20:] = 1, 2
    source = Drawn([label], image=USUAL)
    finding = findings({"train": source})["class-imbalance"]
    assert finding.severity == INFO
    assert finding.found == ("car: 0.25% of the pixels, 1 images",)
    lines = paste_lines(diagnose({"train": source}))
    weights = lines["loss.class_weights, median_present"].partition("class_weights=")[2]
    # Shares 1194, 6 and 1200 of 2400; the median is that of 1194.
    assert weights == f"1.0000,{1194 / 6:.4f},{1194 / 1200:.4f}"
    assert weights in finding.remedy
    assert "class-imbalance" not in findings({"train": Drawn([ALL], image=USUAL)})


def test_a_training_split_of_another_name():
    half = Drawn([ALL % 2], image=USUAL)
    diagnosis = diagnose({"fold1": half, "val": half}, config=config_for(train_split="fold1"))
    unseen = {f.split: f.severity for f in diagnosis.findings if f.code == "unseen-class"}
    assert unseen == {"fold1": WARNING, "val": INFO}
    assert diagnosis.train_split == "fold1"
    assert len(diagnosis.weights["enet"]) == 3


def test_no_label_at_all_gives_no_weights():
    diagnosis = diagnose({"train": Drawn([uint8([255])], from_names(["a"]))})
    assert diagnosis.weights == {}
    assert "loss.class_weights, enet" not in paste_lines(diagnosis)
    with pytest.raises(ValueError, match="no splits to diagnose"):
        diagnose({})


def test_a_config_is_diagnosed_even_where_a_split_cannot_be_opened(tmp_path):
    planted.clean(tmp_path, {"train": 2, "val": 2})

    def config(**options):
        data = {"name": "folder", "root": str(tmp_path), "classes": "a,b,c,d,e,f,g", **options}
        return config_for(planted.SIZE, **data)

    assert diagnose_config(config()).of(ERROR) == []  # it has no split test
    diagnosis = diagnose_config(config(eval_splits=("test",)))
    assert list(diagnosis.splits) == ["train", "val"]
    (finding,) = diagnosis.of(ERROR)
    assert (finding.code, finding.split) == ("cannot-open", "test")
    assert "splits found: train, val" in finding.found[0]
    assert finding.remedy.startswith("use ")
    with pytest.raises(ValueError, match="empty is not an existing folder"):
        diagnose_config(config(root=str(tmp_path / "empty")))
    with pytest.raises(ValueError, match=r"data\.name='unheard-of'"):
        diagnose_config(config(name="unheard-of"))


def test_the_streets_of_the_base_config_need_no_file():
    config = base.get_config()
    config.data.train_images, config.data.eval_images = 16, 2
    diagnosis = diagnose_config(config)
    lengths = {split: numbers.images for split, numbers in diagnosis.splits.items()}
    assert lengths == {"train": 16, "val": 2, "test": 2}
    assert not diagnosis.of(ERROR)
    assert not diagnosis.of(WARNING)


def test_masks_that_share_a_cause_are_one_finding(tmp_path):
    source = open_folder(pairs(tmp_path, "abcdefg", ids=9), "train", THREE)
    (finding,) = diagnose({"train": source}).of(ERROR)
    assert finding.title == "train: 7 of 7 masks hold ids that are no class"
    assert (len(finding.files), len(finding.found), finding.code) == (7, 6, "unknown-ids")
    assert finding.found[-1] == "and 2 more"
