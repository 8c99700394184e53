"""The model card of an exported run: what the network is, its data, its numbers, how to load it."""

import datetime
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from segjax.inference.predictor import Predictor
from segjax.training.run_record import load_record

RESULTS = "results.md"
UNKNOWN_LICENSE = "unknown"


def model_card(
    predictor: Predictor, workdir: str | pathlib.Path, license: str = UNKNOWN_LICENSE
) -> str:
    """The README.md of a model repository: YAML that the Hugging Face hub reads, then Markdown.

    Args:
      predictor: of the run.
      workdir: of the run; its run.json and results.md are read if they are there.
      license: an identifier of the hub, such as "mit" or "cc-by-nc-4.0".
    """
    workdir, config = pathlib.Path(workdir), predictor.config
    model, data = config["model"], config["data"]
    title = f"{model['name']} on {data['name']}"
    sections = [
        _front_matter(data["name"], license),
        f"# {title}",
        _network(predictor),
        "## Use\n\n" + _use(predictor),
        "## Data\n\n" + _data(predictor, workdir),
        "## Results\n\n" + _results(workdir),
        "## Training\n\n" + _training(config, workdir),
        f"## Licence\n\n{_license(license)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(dataset: str, license: str) -> str:
    lines = [
        "---",
        f"license: {json.dumps(license)}",
        "library_name: segjax",
        "pipeline_tag: image-segmentation",
        "tags:",
        "- semantic-segmentation",
        "- jax",
        "- flax",
        f"- {json.dumps(dataset)}",
        "---",
    ]
    return "\n".join(lines)


def _network(predictor: Predictor) -> str:
    model, classes = predictor.config["model"], predictor.classes
    parameters = sum(leaf.size for leaf in jax.tree.leaves(predictor.variables["params"]))
    encoder = f" on {model['encoder']}" if "encoder" in model else ""
    kind = "any of these labels" if classes.multilabel else "one of these classes"
    return (
        f"A segmentation network of segjax (JAX and Flax), `{model['name']}`{encoder}: "
        f"{parameters:,} parameters. Each pixel has {kind}: "
        f"{', '.join(classes.names)}."
    )


def _use(predictor: Predictor) -> str:
    data, (height, width) = predictor.config["data"], predictor.config["data"]["image_size"]
    rule = predictor.head.rule
    if predictor.normalization.local_contrast:
        prepared = "contrast(rgb)  # see local_contrast in config.json"
    else:
        prepared = "(rgb - net.mean) / net.std"
    decided = "logits.argmax(-1)  # ids in the order of net.classes"
    if rule:
        decided = f"jax.nn.sigmoid(logits) > jnp.array(net.threshold)  # bool [..., K]; {rule}"
    lines = [
        "Masks of your own images, at their own size:",
        "",
        "    segjax --mode=predict --workdir=THIS_FOLDER --input=IMAGE_OR_FOLDER",
        "",
        "In Python `segjax.Predictor.from_pretrained(THIS_FOLDER).predict(image)` does that. The "
        "network by itself:",
        "",
        "```python",
        *(["import jax", "import jax.numpy as jnp"] if rule else []),
        "import segjax",
        "",
        'net = segjax.load_pretrained("THIS_FOLDER")',
        f"images = {prepared}",
        'logits = net.model.apply(net.variables, images, train=False)["logits"]',
        f"labels = {decided}",
        "```",
        "",
        f"`rgb` is float [n, H, W, {data['channels']}] in [0, 1]. The network was trained and "
        f"evaluated on images fitted to {height}x{width} (same shape, the rest the mean colour). "
        "`config.json` has mean, std, size, classes and colours.",
    ]
    return "\n".join(lines)


def _data(predictor: Predictor, workdir: pathlib.Path) -> str:
    data = predictor.config["data"]
    variant = f", variant {data['variant']}" if data.get("variant") else ""
    lines = [f"`{data['name']}`{variant}; trained on the split `{data['train_split']}`."]
    for split, state in load_record(workdir)["data"].items():
        lines.append(f"- {split}: {state['images']:,} images, fingerprint {state['fingerprint']}")
    return "\n".join([lines[0], *([""] if lines[1:] else []), *lines[1:]])


def _results(workdir: pathlib.Path) -> str:
    path = workdir / RESULTS
    if not path.is_file():
        return "Not evaluated."
    date = datetime.date.fromtimestamp(path.stat().st_mtime).isoformat()
    return f"Measured on {date}.\n\n{path.read_text(encoding='utf-8').strip()}"


def _training(config: Mapping[str, Any], workdir: pathlib.Path) -> str:
    train, optim = config["train"], config["optim"]
    length = f"{train['steps']:,} steps" if train["steps"] else f"{train['epochs']:g} epochs"
    start = "from weights of another run or file" if config["init_from"] else "from random weights"
    lines = [
        f"{length} of {train['batch_size']} images, {optim['name']}, learning rate "
        f"{optim['learning_rate']:g} ({optim['schedule']}), {start}.",
    ]
    environment = load_record(workdir)["environment"]
    known = ("started", "commit", "device", "segjax", "jax", "flax")
    facts = [f"- {name}: {environment[name]}" for name in known if environment.get(name)]
    return "\n".join([*lines, *([""] if facts else []), *facts])


def _license(license: str) -> str:
    if license == UNKNOWN_LICENSE:
        return (
            "Unknown: who exported the run did not say. The licence of the data may bind what was "
            "trained on them."
        )
    return f"{license}, as the exporter says."
