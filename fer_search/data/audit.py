"""What is wrong with a set of faces: duplicates, blanks, conflicting labels, images on both sides of a split."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.data.faces import USAGES, Faces

# Bits out of 64. On FER2013, pairs 4 bits apart are the same photograph; at 6 some are strangers, at 8 most.
NEAR_DISTANCE = 4


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of different images whose 64-bit perceptual hashes differ in at most `max_distance` bits.

    A group is a connected component of such pairs. Byte-identical images count as one image, constant images as none.
    """

    max_distance: int
    pairs: int
    images: int
    groups: int
    groups_across_splits: int


@dataclass(frozen=True)
class Audit:
    """Counts of images; a group is two or more byte-identical images."""

    fingerprint: str
    num_images: int
    counts: dict[str, dict[str, int]]  # usage -> class -> images
    constant_images: int
    duplicate_groups: int
    extra_copies: int
    groups_across_splits: int
    groups_with_conflicting_labels: int
    test_images_in_training: dict[str, int]  # usage -> its images that stand in Training too
    training_images_in_tests: int
    near_duplicates: NearDuplicates | None

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as JSON-able values."""
        return asdict(self)


def audit(faces: Faces, *, near_duplicates: bool = False) -> Audit:
    """Count what is wrong with the faces; near duplicates take about 10 s for FER2013 and are an option."""
    clusters = duplicate_clusters(faces)
    usages = [usage for usage in USAGES if usage in faces.usage]
    usage_codes = _usage_codes(faces)
    sizes = np.bincount(clusters)
    in_training = np.isin(clusters, clusters[faces.usage == "Training"])
    return Audit(
        fingerprint=faces.fingerprint(),
        num_images=len(faces),
        counts={
            usage: dict(zip(faces.classes, np.bincount(labels, minlength=len(faces.classes)).tolist(), strict=True))
            for usage in usages
            for labels in [faces.labels[faces.usage == usage]]
        },
        constant_images=int(np.count_nonzero(_is_constant(faces))),
        duplicate_groups=int(np.count_nonzero(sizes > 1)),
        extra_copies=len(faces) - len(sizes),
        groups_across_splits=_num_mixed(clusters, usage_codes),
        groups_with_conflicting_labels=_num_mixed(clusters, faces.labels),
        test_images_in_training={
            usage: int(np.count_nonzero(in_training[faces.usage == usage])) for usage in usages if usage != "Training"
        },
        training_images_in_tests=int(np.count_nonzero(training_images_in_tests(faces, clusters))),
        near_duplicates=_near_duplicates(faces, clusters, usage_codes) if near_duplicates else None,
    )


def duplicate_clusters(faces: Faces) -> NDArray[np.int64]:
    """Return a cluster id (N,) per face, equal for byte-identical images.

    Ids count up from 0 in the order of the pixels' bytes, so an image's id does not depend on where it stands.
    """
    size = math.prod(faces.form.shape)
    rows = np.ascontiguousarray(faces.pixels).reshape(len(faces), size).view(f"S{size}")[:, 0]
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def training_images_in_tests(faces: Faces, clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask (N,) of the Training images that stand byte-identical in a test split too."""
    training = faces.usage == "Training"
    in_tests: NDArray[np.bool_] = training & np.isin(clusters, clusters[~training])
    return in_tests


def _usage_codes(faces: Faces) -> NDArray[np.int64]:
    return np.unique(faces.usage, return_inverse=True)[1].astype(np.int64)


def _num_mixed(clusters: NDArray[np.int64], values: NDArray[np.int64]) -> int:
    """Count the clusters in which more than one value occurs."""
    distinct = np.unique(np.stack([clusters, values]), axis=1)
    return int(np.count_nonzero(np.bincount(distinct[0]) > 1))


def _is_constant(faces: Faces) -> NDArray[np.bool_]:
    flat = faces.pixels.reshape(len(faces), -1, faces.form.channels)
    constant: NDArray[np.bool_] = (flat == flat[:, :1]).all(axis=(1, 2))
    return constant


def _near_duplicates(faces: Faces, clusters: NDArray[np.int64], usage_codes: NDArray[np.int64]) -> NearDuplicates:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # One image per cluster, in the order of cluster ids.
    first = np.unique(clusters, return_index=True)[1]
    kept = np.flatnonzero(~_is_constant(faces.take(first)))
    pairs = _close_pairs(_perceptual_hashes(faces.pixels[first[kept]]))
    graph = coo_array(
        (np.ones(len(pairs), dtype=bool), (kept[pairs[:, 0]], kept[pairs[:, 1]])), shape=(len(first),) * 2
    )
    component_of_cluster = connected_components(graph, directed=False)[1]
    near = np.unique(kept[pairs])
    involved = np.isin(clusters, near)
    components = component_of_cluster[clusters[involved]].astype(np.int64)
    return NearDuplicates(
        max_distance=NEAR_DISTANCE,
        pairs=len(pairs),
        images=int(np.count_nonzero(involved)),
        groups=len(np.unique(components)),
        groups_across_splits=_num_mixed(components, usage_codes[involved]),
    )


def _perceptual_hashes(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    import imagehash
    from PIL import Image

    bits = np.array([imagehash.phash(Image.fromarray(image)).hash.ravel() for image in pixels], dtype=bool)
    return np.packbits(bits.reshape(len(pixels), 64), axis=1).view(np.uint64).ravel()


def _close_pairs(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the index pairs (P, 2), first below second, of hashes at most `NEAR_DISTANCE` bits apart."""
    found = [np.empty((0, 2), dtype=np.int64)]
    rows_per_step = 512
    for start in range(0, len(hashes), rows_per_step):
        distances = np.bitwise_count(hashes[start : start + rows_per_step, None] ^ hashes[None, start:])
        pairs = np.argwhere(distances <= NEAR_DISTANCE)
        found.append(pairs[pairs[:, 0] < pairs[:, 1]] + start)
    return np.concatenate(found)
