"""The folders of known layouts, and the words that folders of images and of masks are named by."""

from typing import NamedTuple


class Row(NamedTuple):
    """A named layout: the folders of its images, and of its masks or a file of polygons, of which
    the first that exists is taken."""

    name: str
    images: str
    masks: tuple[str, ...]


NAMED = (
    Row("Pascal VOC", "JPEGImages", ("SegmentationClassPNG", "SegmentationClass")),
    Row("mmsegmentation", "img_dir/{split}", ("ann_dir/{split}",)),
    Row("ADE20K", "images/{split}", ("annotations/{split}",)),
    Row("BDD100K", "images/10k/{split}", ("labels/sem_seg/masks/{split}",)),
    Row("BDD100K", "images/100k/{split}", ("labels/sem_seg/masks/{split}",)),
    Row("keras-segmentation", "images_prepped_{split}", ("annotations_prepped_{split}",)),
    Row("Carvana", "{split}", ("{split}_masks",)),
    Row("Semantic-Segmentation-Suite", "{split}", ("{split}_labels",)),
    Row("SegNet-Tutorial", "{split}", ("{split}annot",)),
    Row("DRIVE", "{split}/images", ("{split}/1st_manual",)),
    Row("LoveDA", "{split}/*/images_png", ("{split}/*/masks_png",)),
    Row("Supervisely", "*/img", ("*/masks_machine", "*/ann")),
    Row("Supervisely", "img", ("masks_machine", "ann")),
    Row("COCO", "{split}2017", ("annotations/instances_{split}2017.json",)),
    Row("COCO", "{split}2014", ("annotations/instances_{split}2014.json",)),
    Row("COCO", "images/{split}2017", ("annotations/instances_{split}2017.json",)),
    Row("COCO", "images/{split}2014", ("annotations/instances_{split}2014.json",)),
    *(
        Row(name, images, masks)
        for images in ("images/{split}", "{split}/images", "{split}", "images")
        for name, masks in (
            ("Roboflow's COCO export", ("{split}/_annotations.coco.json",)),
            ("COCO", ("annotations/instances_{split}.json", "instances_{split}.json")),
            ("COCO", ("annotations/{split}.json", "{split}.json", "labels/{split}.json")),
            ("COCO", ("{split}/annotations.json", "{split}/labels.json")),
            ("CVAT", ("annotations/{split}.xml", "{split}.xml", "{split}/annotations.xml")),
            ("VIA", ("{split}/via_region_data.json", "{split}/via_*.json", "{split}/via_*.csv")),
        )
    ),
    *(
        Row(name, images, masks)
        for images in ("images", "JPEGImages", ".")
        for name, masks in (
            ("CVAT", ("annotations.xml", "images/annotations.xml")),
            ("COCO", ("annotations/instances_default.json", "annotations/instances.json")),
            ("COCO", ("annotations.json", "annotations/annotations.json", "coco.json")),
            ("COCO", ("instances.json", "labels.json", "_annotations.coco.json")),
            ("Label Studio's COCO export", ("result.json",)),
            ("VIA", ("via_region_data.json", "via_*.json", "via_*.csv", "images/via_*.json")),
        )
    ),
)
# fmt: off
IMAGES = (
    "images", "image", "imgs", "img", "img_dir", "images_png", "jpegimages", "photos", "photo",
    "pictures", "pics", "rgb", "frames", "input", "inputs", "originals", "original", "raw", "tiles",
)
# fmt: on
# fmt: off
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "anns",
    "ann", "annos", "anno", "ann_dir", "gts", "gt", "groundtruth", "ground_truth", "ground-truth",
    "groundtruths", "segmentations", "segmentation", "segs", "seg", "segmaps", "segmap",
    "segmentation_masks", "segmentationclass", "segmentationclasspng", "targets", "target",
    "masks_png", "masks_machine", "1st_manual", "manual", "json", "jsons", "polygons", "lab", "lbl",
    "labelcol",
)
# fmt: on
# Image folder and mask folder, of such names (in {} the name of a split).
BY_SPLIT = (
    ("{images}/{split}", "{masks}/{split}"),
    ("{split}/{images}", "{split}/{masks}"),
    ("{split}/*/{images}", "{split}/*/{masks}"),
    *(
        (f"{{split}}{between}{{images}}", f"{{split}}{between}{{masks}}")
        for between in ("", "_", "-", " ")
    ),
    *(
        (f"{{images}}{between}{{split}}", f"{{masks}}{between}{{split}}")
        for between in ("", "_", "-", " ")
    ),
    *(("{split}", f"{{split}}{between}{{masks}}") for between in ("", "_", "-", " ")),
    ("{split}", "{masks}/{split}"),
)
WHOLE = (("{images}", "{masks}"), ("*/{images}", "*/{masks}"))
# Files that name the classes.
CLASS_LISTS = (
    "_classes.csv",
    "labelmap.txt",
    "class_dict.csv",
    "class_names.txt",
    "classes.txt",
    "labels.txt",
    "classes.csv",
    "classes.json",
    "class_names.csv",
    "label_colors.txt",
    "label_classes.json",
    "id2label.json",
    "meta.json",
    "data.yaml",
    "data.yml",
    "dataset.yaml",
    "obj.names",
)
