import json

import numpy as np

from fer_search.data.audit import NEAR_DISTANCE, audit, duplicate_clusters, training_images_in_tests
from fer_search.data.faces import Faces
from fer_search.data.synthetic import synthesize


def hand_built() -> Faces:
    """Ten images with known duplicates, made from five different ones and one constant.

    a: Training happy, Training happy, PublicTest happy; b: Training angry, Training sad, which conflict;
    c: PublicTest fear, PrivateTest fear; d: Training neutral; e: PrivateTest neutral; black: Training sad.
    """
    a, b, c, d, e = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    black = np.zeros((48, 48), dtype=np.uint8)
    rows = [
        (a, 3, "Training"),
        (b, 0, "Training"),
        (a, 3, "PublicTest"),
        (c, 2, "PublicTest"),
        (d, 6, "Training"),
        (a, 3, "Training"),
        (black, 4, "Training"),
        (b, 4, "Training"),
        (c, 2, "PrivateTest"),
        (e, 6, "PrivateTest"),
    ]
    pixels, labels, usage = zip(*rows, strict=True)
    return Faces(np.array(pixels), np.array(labels), np.array(usage), np.array([str(row) for row in range(len(rows))]))


def test_duplicates_blanks_and_conflicts_are_counted():
    found = audit(hand_built())
    assert found.num_images == 10
    assert found.duplicate_groups == 3
    assert found.extra_copies == 4
    assert found.groups_across_splits == 2
    assert found.groups_with_conflicting_labels == 1
    assert found.constant_images == 1
    assert found.test_images_in_training == {"PublicTest": 1, "PrivateTest": 0}
    assert found.training_images_in_tests == 2
    assert found.near_duplicates is None


def test_images_are_counted_per_usage_and_emotion():
    counts = audit(hand_built()).counts
    none = dict.fromkeys(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), 0)
    assert counts == {
        "Training": none | {"angry": 1, "happy": 2, "sad": 2, "neutral": 1},
        "PublicTest": none | {"fear": 1, "happy": 1},
        "PrivateTest": none | {"fear": 1, "neutral": 1},
    }


def test_an_audit_is_json():
    found = audit(hand_built(), near_duplicates=True)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_clusters_are_those_of_equal_bytes_and_do_not_depend_on_the_order():
    faces = hand_built()
    clusters = duplicate_clusters(faces)
    for one in range(len(faces)):
        for other in range(len(faces)):
            equal = faces.pixels[one].tobytes() == faces.pixels[other].tobytes()
            assert (clusters[one] == clusters[other]) == equal
    order = np.random.default_rng(1).permutation(len(faces))
    np.testing.assert_array_equal(duplicate_clusters(faces.take(order)), clusters[order])


def test_images_that_differ_in_trailing_zero_pixels_only_are_no_duplicates():
    pixels = np.zeros((2, 48, 48), dtype=np.uint8)
    pixels[:, 0, 0] = 7
    pixels[1, 47, 46] = 1
    faces = Faces(pixels, np.zeros(2, dtype=np.int64), np.array(["Training"] * 2), np.array(["a", "b"]))
    assert duplicate_clusters(faces).tolist() == [0, 1]


def test_training_images_in_a_test_split_are_found():
    faces = hand_built()
    assert np.flatnonzero(training_images_in_tests(faces, duplicate_clusters(faces))).tolist() == [0, 5]


def test_faintly_changed_copies_are_near_duplicates_and_other_faces_are_not():
    faces = synthesize(60, seed=4)
    pixels = faces.pixels[:6].copy()
    copies = pixels[:3] // 2 + 60  # the same picture at another exposure
    exact = pixels[3:4]
    usage = np.array(["Training"] * 6 + ["PublicTest", "Training", "Training", "PublicTest"])
    faces = Faces(
        np.concatenate([pixels, copies, exact]),
        np.zeros(10, dtype=np.int64),
        usage,
        np.array([str(row) for row in range(10)]),
    )
    near = audit(faces, near_duplicates=True).near_duplicates
    assert near is not None
    assert near.max_distance == NEAR_DISTANCE
    assert (near.pairs, near.images, near.groups, near.groups_across_splits) == (3, 6, 3, 1)


def test_without_near_duplicates_there_are_zero():
    constant = np.repeat(np.arange(4, dtype=np.uint8), 2304).reshape(4, 48, 48)
    faces = Faces(constant, np.zeros(4, dtype=np.int64), np.array(["Training"] * 4), np.array(list("abcd")))
    near = audit(faces, near_duplicates=True).near_duplicates
    assert near is not None
    assert (near.pairs, near.images, near.groups, near.groups_across_splits) == (0, 0, 0, 0)
