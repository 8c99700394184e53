"""Images that occur more than once: the same pixels, or nearly the same picture."""

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segjax.data.doctor.samples import SampleFacts
from segjax.data.files.regular import regular

Place = tuple[str, int]  # split and place in its facts

# Largest difference of two thumbnails (48x48, grey levels) at any pixel. Measured on CamVid:
# copies as JPEG of quality 75 or more, at half, double or an odd size, differ by 3 at most; the
# most similar neighbouring frames, from a standing car, by 9.
_NEAR = 4
# Images of less contrast (grey levels) are alike without being copies.
_LEAST_CONTRAST, _LEAST_CONTRAST_NEAR = 2, 8
_COARSE = 6  # blocks a side
# Of these, files of different pictures are hardly ever of one length.
_COMPRESSED = ("JPEG", "PNG", "WEBP")


class Duplicate(NamedTuple):
    """Two places of one image: whether their pixels are equal or nearly so, and whether the masks
    of equal images are equal too."""

    first: Place
    second: Place
    exact: bool
    same_mask: bool


def duplicates(facts: Mapping[str, Sequence[SampleFacts]]) -> list[Duplicate]:
    """All images that occur again, each with the place where it occurs first.

    Where an image occurs in several splits, each other split has a pair with the first one. Where
    pixels were not noted, equal files are found.
    """
    seen = [
        ((split, index), sample)
        for split, samples in facts.items()
        for index, sample in enumerate(samples)
        if sample.size and sample.contrast >= _LEAST_CONTRAST
    ]
    hashed = all(sample.image_hash for _, sample in seen)
    digests = {} if hashed else _file_digests(seen)
    groups = defaultdict(list)
    for place, sample in seen:
        if key := digests.get(place) or sample.image_hash:
            groups[key].append((place, sample))
    pairs = [_pair(group[0], again, exact=True) for group in groups.values() for again in group[1:]]
    one_each = [group[0] for group in groups.values()]
    pairs += [_pair(one_each[i], one_each[j], exact=False) for i, j in _near(one_each)]
    return sorted(pairs)


def _file_digests(images: Sequence[tuple[Place, SampleFacts]]) -> dict[Place, str]:
    """A digest of each compressed image file that is as long as another one."""
    sizes = Counter(sample.image_header.size for _, sample in images)
    digests = {}
    for place, sample in images:
        header = sample.image_header
        if header.format in _COMPRESSED and sizes[header.size] > 1:
            with contextlib.suppress(OSError), open(regular(sample.image_file), "rb") as file:
                digests[place] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _pair(first, second, exact: bool) -> Duplicate:
    (place, sample), (other_place, other) = first, second
    # Near copies may differ in size, and their masks with them: only exact ones are compared.
    hashes = {sample.mask_hash, other.mask_hash} - {""}
    return Duplicate(place, other_place, exact, not exact or len(hashes) < 2)


def _near(images: Sequence[tuple[Place, SampleFacts]]) -> Iterator[tuple[int, int]]:
    """Pairs i < j of images of one shape whose thumbnails differ by `_NEAR` at most anywhere."""
    chosen = [
        i
        for i, (_, s) in enumerate(images)
        if s.thumbnail is not None and s.contrast >= _LEAST_CONTRAST_NEAR
    ]
    if len(chosen) < 2:
        return
    fine = np.stack([images[i][1].thumbnail for i in chosen]).astype(np.int16)
    aspect = np.log([images[i][1].size[0] / images[i][1].size[1] for i in chosen])
    # Means differ by no more than the most different pixels, so these bounds lose no pair. Sorted
    # by their mean, images need to be compared with the few that follow within the bound.
    side = fine.shape[1] // _COARSE
    coarse = fine.reshape(-1, _COARSE, side, _COARSE, side).mean((2, 4), dtype=np.float32)
    coarse = coarse.reshape(len(chosen), -1)
    mean = coarse.mean(1)
    order = np.argsort(mean, kind="stable")
    ends = np.searchsorted(mean[order], mean[order] + _NEAR, side="right")
    ordered = coarse[order]
    for rank, end in enumerate(ends):
        i, others = order[rank], order[rank + 1 : end]
        alike = (np.abs(ordered[rank + 1 : end] - ordered[rank]) <= _NEAR).all(1)
        for j in others[alike]:
            same_shape = abs(aspect[i] - aspect[j]) < 0.02
            if same_shape and np.abs(fine[i] - fine[j]).max() <= _NEAR:
                yield tuple(sorted((chosen[i], chosen[j])))
