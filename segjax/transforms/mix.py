"""Squares that show nothing, and views that take pixels from another example of their batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from segjax.data.classes import IGNORE
from segjax.transforms.draws import happens, key_of
from segjax.transforms.options import Augmentation

# Images in [0, 1], int32 labels, and the masks of the pixels that show the original image.
Views = tuple[Float[Array, "n h w c"], Int[Array, "n h w"], Bool[Array, "n h w"]]


def cutout_mask(key: PRNGKeyArray, config: Augmentation) -> Bool[Array, "h w"]:
    """Squares with their centres anywhere in the view, so parts of them may lie outside.

    Reference: DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", arXiv 1708.04552, section 3.2: one square, filled with the mean colour, of a quarter
    (CIFAR-100) or half (CIFAR-10) of the image's side.
    """
    sides = config.crop_size
    side = max(1, round(config.cutout_size * min(sides)))
    y, x = (
        jax.random.randint(key_of(key, f"cutout_{axis}"), (config.cutout, 1), 0, size)
        for axis, size in zip("yx", sides, strict=True)
    )

    def covered(centre, size):
        start = centre - side // 2
        return (jnp.arange(size) >= start) & (jnp.arange(size) < start + side)

    rows, columns = covered(y, sides[0]), covered(x, sides[1])
    squares = jnp.any(rows[:, :, None] & columns[:, None, :], 0)
    return squares & happens(key, "cutout", config.cutout_probability)


def mixed(
    keys: Key[Array, "n"],
    views: Views,
    index: Int[Array, "n"],
    config: Augmentation,
    axis_name: str | None = None,
) -> Views:
    """CutMix, then class-mix, each with its probability.

    The pixels come with their labels from the view of another example of the whole batch, which is
    drawn by the example's key and the others' indices alone: neither places in the batch, nor
    padding rows, nor the number of devices matter. Padding rows neither give nor take. Without
    another example in the batch nothing is mixed.

    - CutMix pastes a box of half of the view's area, of random shape and place inside the view.
      Yun et al., ICCV 2019; the box is that for segmentation of French et al., "Semi-supervised
      semantic segmentation needs strong, varied perturbations", BMVC 2020, section 4.
    - Class-mix pastes the pixels of half of the classes that the other view shows, rounded down,
      drawn at random. Olsson et al., "ClassMix", WACV 2021, algorithm 1, where predictions stand
      for labels. Ignored pixels are of no class.

    Args:
      keys: one per example.
      views: of the examples, see `augment.augment`.
      index: of the examples in the data set; below 0 for padding rows.
      axis_name: pmap's axis, if devices share the batch over one.
    """
    everyone, others = views, index
    if axis_name is not None:
        everyone, others = jax.lax.all_gather((views, index), axis_name, tiled=True)

    def pasted(views, change, probability, mask_of):
        partner, exists = _partners(keys, index, others, change)
        theirs = jax.tree.map(lambda x: jnp.take(x, partner, 0, mode="clip"), everyone)

        def one(key, exists, own, theirs):
            mask = mask_of(key, theirs[1]) & happens(key, change, probability) & exists
            return jax.tree.map(
                lambda a, b: jnp.where(mask.reshape(*mask.shape, *[1] * (a.ndim - 2)), b, a),
                own,
                theirs,
            )

        return jax.vmap(one)(keys, exists, views, theirs)

    if config.cutmix:
        views = pasted(views, "cutmix", config.cutmix, _box)
    if config.classmix:
        views = pasted(views, "classmix", config.classmix, _half_of_the_classes)
    return views


def _partners(keys, index, others, change):
    """The row of each example's partner among all rows, and whether it has one."""

    def scores(key):
        key = key_of(key, f"{change}_partner")
        return jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i)))(others)

    allowed = (others >= 0) & (index >= 0)[:, None] & (others != index[:, None])
    # Equal indices are equal views, so it does not matter which of them wins.
    ranked = jnp.where(allowed, jax.vmap(scores)(keys) >> 1, jnp.uint32(2**32 - 1))
    return jnp.argmin(ranked, 1), jnp.any(allowed, 1)


def _box(key, labels):
    """A box of half of the area: its height is drawn log-uniformly from half of the view's to all
    of it."""
    down, across, shape = jax.random.uniform(key_of(key, "cutmix_box"), (3,))
    height = 0.5**shape

    def covered(size, share, place):
        cells = jnp.round(size * share)
        start = jnp.round((size - cells) * place)
        return (jnp.arange(size) >= start) & (jnp.arange(size) < start + cells)

    rows = covered(labels.shape[0], height, down)
    return rows[:, None] & covered(labels.shape[1], 0.5 / height, across)


def _half_of_the_classes(key, labels):
    """The pixels of half of the classes."""
    present = jax.lax.platform_dependent(labels, cpu=_seen_by_counting, default=_seen_by_comparing)
    scores = jax.random.uniform(key_of(key, "classmix_classes"), (IGNORE,))
    scores = jnp.where(present, scores, jnp.inf)
    chosen = scores < jnp.sort(scores)[jnp.sum(present) // 2]
    return _is_in(labels, chosen)


def _seen_by_comparing(labels):
    """Which ids occur. GPUs and TPUs store no comparison; there a scatter is slow."""
    return jnp.any(labels[..., None] == jnp.arange(IGNORE), (0, 1))


def _seen_by_counting(labels):
    return jnp.bincount(labels.reshape(-1), length=IGNORE + 1)[:IGNORE] > 0


def _is_in(labels: Int[Array, "h w"], chosen: Bool[Array, "255"]) -> Bool[Array, "h w"]:
    """Whether each pixel's id is a chosen one: its bit in the one of 8 words that holds it.
    (A gather over the pixels is slow on TPUs.)"""
    bits = jnp.append(chosen, False).reshape(8, 32).astype(jnp.uint32)
    words = jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32), 1, dtype=jnp.uint32)
    of_pixel = jnp.where(labels[..., None] // 32 == jnp.arange(8), words, 0)
    bit = of_pixel >> (labels[..., None] % 32).astype(jnp.uint32)
    return jnp.any(bit & 1 == 1, -1)
