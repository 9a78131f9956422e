import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fer_search.data.audit import duplicate_clusters
from fer_search.data.faces import EMOTIONS, Faces
from fer_search.data.splits import fold_of, read_ledger, read_private_test, split_faces
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Synthetic faces with duplicates within Training and 30 + 30 test images that stand in Training too."""
    faces = synthesize(2000, seed=6)
    pixels = faces.pixels.copy()
    training, public, private = (np.flatnonzero(faces.usage == usage) for usage in np.unique(faces.usage)[[2, 1, 0]])
    pixels[training[100:200]] = pixels[training[200:300]]
    pixels[public[:30]] = pixels[training[:30]]
    pixels[private[:30]] = pixels[training[30:60]]
    return Faces(pixels, faces.labels, faces.usage, faces.names)


def with_usage(faces: Faces, usage: np.ndarray) -> Faces:
    return Faces(faces.pixels, faces.labels, usage, faces.names)


def merged(faces: Faces) -> Faces:
    return with_usage(faces, np.where(faces.usage == "Training", "Training", "Test"))


def images(faces: Faces) -> set[bytes]:
    return {image.tobytes() for image in faces.pixels}


def shares(faces: Faces) -> np.ndarray:
    return np.bincount(faces.labels, minlength=len(EMOTIONS)) / len(faces)


@pytest.mark.parametrize("fit_fraction", [1.0, 0.3])
def test_the_parts_share_no_image_and_no_name(faces, fit_fraction):
    parts = split_faces(faces, seed=0, validation_fraction=0.1, fit_fraction=fit_fraction)
    sets = [parts.fit, parts.validation, parts.public, faces.where("PrivateTest")]
    for one in range(4):
        for other in range(one):
            if (one, other) != (3, 2):  # the official test splits are not ours to clean
                assert not images(sets[one]) & images(sets[other])
            assert not set(sets[one].names) & set(sets[other].names)


def test_training_images_that_a_test_split_has_too_are_dropped_and_counted(faces):
    parts = split_faces(faces, seed=0, validation_fraction=0.1)
    in_tests = images(faces.where("PublicTest")) | images(faces.where("PrivateTest"))
    expected = sum(image.tobytes() in in_tests for image in faces.where("Training").pixels)
    assert parts.dropped_test_duplicates == expected >= 60
    assert len(parts.fit) + len(parts.validation) == len(faces.where("Training")) - expected
    assert parts.label == "PublicTest"


def test_kept_test_duplicates_are_said_in_the_label(faces):
    parts = split_faces(faces, seed=0, validation_fraction=0.1, drop_test_duplicates=False)
    assert parts.dropped_test_duplicates == 0
    assert parts.label == "PublicTest, whose duplicates in Training were kept"
    assert len(parts.fit) + len(parts.validation) == len(faces.where("Training"))


@pytest.mark.parametrize("drop", [True, False])
def test_public_unique_are_the_public_images_without_a_copy_in_training_each_once(faces, drop):
    pixels, labels = faces.pixels.copy(), faces.labels.copy()
    public = np.flatnonzero(faces.usage == "PublicTest")
    pixels[public[40:50]] = pixels[public[50:60]]  # copies within PublicTest, with whatever labels they have
    labels[public[40:45]], labels[public[50:55]] = 2, 1
    for order in (np.arange(len(faces)), np.random.default_rng(0).permutation(len(faces))):
        copied = Faces(pixels, labels, faces.usage, faces.names).take(order)
        parts = split_faces(copied, seed=0, validation_fraction=0.1, drop_test_duplicates=drop)
        unique = parts.public.take(parts.public_unique)
        seen = [image.tobytes() for image in unique.pixels]
        assert len(seen) == len(set(seen))
        assert set(seen) == images(parts.public) - images(copied.where("Training"))
        kept = {image.tobytes(): label for image, label in zip(unique.pixels, unique.labels.tolist(), strict=True)}
        assert [kept[pixels[i].tobytes()] for i in public[40:45]] == [1] * 5
        assert len(parts.public) == len(public) > len(unique)


def test_public_unique_of_a_held_out_public_holds_each_image_once(faces):
    parts = split_faces(faces.where("Training"), seed=0, validation_fraction=0.1)
    unique = parts.public.take(parts.public_unique)
    assert images(unique) == images(parts.public)
    assert len(images(unique)) == len(unique) < len(parts.public)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25])
def test_validation_is_a_stratified_fraction(faces, fraction):
    parts = split_faces(faces, seed=3, validation_fraction=fraction)
    size = len(parts.fit) + len(parts.validation)
    assert len(parts.validation) == pytest.approx(fraction * size, abs=0.015 * size)
    np.testing.assert_allclose(shares(parts.validation), shares(parts.fit), atol=0.03)


def test_duplicates_within_training_stay_on_one_side(faces):
    clusters = dict(zip(faces.names.tolist(), duplicate_clusters(faces).tolist(), strict=True))
    for seed in range(5):
        parts = split_faces(faces, seed=seed, validation_fraction=0.3)
        fit, validation = ({clusters[name] for name in part.names.tolist()} for part in (parts.fit, parts.validation))
        assert not fit & validation


def test_the_split_depends_on_the_seed_and_not_on_the_order(faces):
    shuffled = faces.take(np.random.default_rng(0).permutation(len(faces)))
    first, again, other = (
        split_faces(one, seed=seed, validation_fraction=0.1) for one, seed in ((faces, 1), (shuffled, 1), (faces, 2))
    )
    for part in ("fit", "validation", "public"):
        assert sorted(getattr(first, part).names) == sorted(getattr(again, part).names)
    assert sorted(first.validation.names) != sorted(other.validation.names)


def test_a_fit_fraction_keeps_a_stratified_part_of_fit_and_the_same_validation(faces):
    whole = split_faces(faces, seed=0, validation_fraction=0.1)
    part = split_faces(faces, seed=0, validation_fraction=0.1, fit_fraction=0.25)
    assert part.validation.names.tolist() == whole.validation.names.tolist()
    assert set(part.fit.names) < set(whole.fit.names)
    assert len(part.fit) == pytest.approx(0.25 * len(whole.fit), rel=0.1)
    np.testing.assert_allclose(shares(part.fit), shares(whole.fit), atol=0.02)


@pytest.mark.parametrize("form", ["merged Test", "Training only", "no PublicTest"])
def test_without_public_test_a_tenth_of_training_stands_in_for_it_whatever_the_seed(faces, form):
    if form == "merged Test":
        faces = merged(faces)
    elif form == "Training only":
        faces = faces.where("Training")
    else:
        faces = faces.take(faces.usage != "PublicTest")
    one, other = (split_faces(faces, seed=seed, validation_fraction=0.1) for seed in (0, 1))
    assert one.label == "held out of Training (no official split)"
    assert set(one.public.usage) == {"Training"}
    assert one.public.names.tolist() == other.public.names.tolist()
    assert one.validation.names.tolist() != other.validation.names.tolist()
    size = len(one.fit) + len(one.validation) + len(one.public)
    assert size == len(faces.where("Training")) - one.dropped_test_duplicates
    assert len(one.public) == pytest.approx(0.1 * size, rel=0.1)
    assert not images(one.public) & (images(one.fit) | images(one.validation))
    assert not images(faces.take(faces.usage != "Training")) & (images(one.fit) | images(one.public))


def test_conflicting_labels_stay_together_and_are_kept(faces):
    training = faces.where("Training")
    labels = training.labels.copy()
    labels[100:200] = (labels[200:300] + 1) % 7
    conflicting = Faces(training.pixels, labels, training.usage, training.names)
    parts = split_faces(conflicting, seed=0, validation_fraction=0.2)
    assert len(parts.fit) + len(parts.validation) + len(parts.public) == len(training)
    assert not images(parts.fit) & images(parts.validation)


def test_a_rare_emotion_is_on_both_sides():
    parts = split_faces(synthesize(60), seed=0, validation_fraction=0.05)
    for part in (parts.fit, parts.validation):
        assert set(part.labels) == set(range(7))


def test_an_emotion_that_cannot_be_on_both_sides_is_reported(faces):
    one_disgust = np.flatnonzero((faces.labels == 1) & (faces.usage == "Training"))[-1:]
    others = np.flatnonzero((faces.labels != 1) & (faces.labels != 5))
    with pytest.raises(InvalidInput) as caught:
        split_faces(faces.take(np.concatenate([others, one_disgust])), seed=0, validation_fraction=0.1)
    assert caught.value.problems == (
        "data: disgust: must have two different images to divide, got 1",
        "data: surprise: must have two different images to divide, got 0",
    )


def test_fractions_out_of_range_are_reported_at_once(faces):
    with pytest.raises(InvalidInput) as caught:
        split_faces(faces, seed=0, validation_fraction=1.0, fit_fraction=0.0)
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidInput, match="validation_fraction"):
        split_faces(faces, seed=0, validation_fraction=float("nan"))


def test_reading_the_private_test_is_written_down_first(faces, tmp_path):
    ledger = tmp_path / "runs" / "ledger.jsonl"
    assert read_ledger(ledger) == []
    private = read_private_test(faces, ledger=ledger, purpose="final evaluation of run 7")
    assert set(private.usage) == {"PrivateTest"}
    assert private.fingerprint() == faces.where("PrivateTest").fingerprint()
    (entry,) = [json.loads(line) for line in ledger.read_text().splitlines()]
    time = datetime.fromisoformat(entry.pop("time"))
    assert timedelta(0) <= datetime.now(UTC) - time < timedelta(minutes=1)
    assert entry == {
        "format": 1,
        "purpose": "final evaluation of run 7",
        "usage": "PrivateTest",
        "num_images": len(private),
        "data_fingerprint": faces.fingerprint(),
        "test_fingerprint": private.fingerprint(),
        "earlier_readings": 0,
        "again": None,
    }


def test_earlier_readings_of_the_same_images_are_counted_even_beside_other_training_data(faces, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    read_private_test(faces, ledger=ledger, purpose="first")
    read_private_test(synthesize(100, seed=9), ledger=ledger, purpose="other data")
    read_private_test(faces.take(np.arange(len(faces)) % 2 == 0), ledger=ledger, purpose="other images")
    less_training = np.flatnonzero((faces.usage != "Training") | (faces.labels != 3))
    read_private_test(faces.take(less_training), ledger=ledger, purpose="third", again="the first was a rehearsal")
    entries = read_ledger(ledger)
    assert [entry["earlier_readings"] for entry in entries] == [0, 0, 0, 1]
    assert [entry["again"] for entry in entries] == [None, None, None, "the first was a rehearsal"]


def test_the_same_images_are_not_read_twice_without_saying_why(faces, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    with pytest.raises(InvalidInput, match=r"again: must not be given: .* has no reading of them, got 'to be sure'"):
        read_private_test(faces, ledger=ledger, purpose="first", again="to be sure")
    read_private_test(faces, ledger=ledger, purpose="first")
    before = ledger.read_bytes()
    less_training = faces.take(np.flatnonzero((faces.usage != "Training") | (faces.labels != 3)))
    for images in (faces, less_training):
        with pytest.raises(
            InvalidInput, match=r"private: must not be read once more, after 20.* \(first\), .*1 earlier"
        ):
            read_private_test(images, ledger=ledger, purpose="second")
    with pytest.raises(InvalidInput, match="again: must say why the images are read once more, got ' '"):
        read_private_test(faces, ledger=ledger, purpose="second", again=" ")
    assert ledger.read_bytes() == before


def test_the_merged_test_is_read_as_such(faces, tmp_path):
    test = read_private_test(merged(faces), ledger=tmp_path / "ledger.jsonl", purpose="x")
    assert len(test) == len(faces.where("PublicTest")) + len(faces.where("PrivateTest"))
    assert read_ledger(tmp_path / "ledger.jsonl")[0]["usage"] == "Test"


def test_data_without_private_images_is_refused_and_not_written_down(faces, tmp_path):
    with pytest.raises(InvalidInput, match="must have PrivateTest or Test images"):
        read_private_test(faces.where("Training"), ledger=tmp_path / "ledger.jsonl", purpose="x")
    assert not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize("damage", [b"not json\n", b"[1]\n", b'{"time": 1}\n', b'{"test_fingerprint": "x"}', b"\xff\n"])
def test_a_damaged_ledger_stops_the_reading(faces, tmp_path, damage):
    ledger: Path = tmp_path / "ledger.jsonl"
    read_private_test(faces, ledger=ledger, purpose="x")
    ledger.write_bytes(ledger.read_bytes() + damage)
    with pytest.raises(InvalidInput, match=r"ledger\.jsonl: line 2: must be one reading as JSON"):
        read_private_test(faces, ledger=ledger, purpose="y")


def test_a_ledger_that_cannot_be_written_stops_the_reading(faces, tmp_path):
    with pytest.raises(InvalidInput, match="must be a file that can be written"):
        read_private_test(faces, ledger=tmp_path, purpose="x")


def test_folds_are_of_equal_size_in_every_class_and_hold_whole_groups_of_copies(faces):
    training = faces.where("Training")
    fold = fold_of(training, folds=5, seed=0)
    clusters = duplicate_clusters(training)
    assert all(len(set(fold[clusters == cluster])) == 1 for cluster in np.flatnonzero(np.bincount(clusters) > 1))
    sizes = np.array([np.bincount(training.labels[fold == number], minlength=7) for number in range(5)])
    alone = np.bincount(clusters)[clusters] == 1
    assert np.ptp(sizes.sum(1)) < 30  # copies go together
    for label in range(7):
        of_class = np.bincount(fold[alone & (training.labels == label)], minlength=5)
        assert np.ptp(of_class) <= 2 + np.count_nonzero(~alone & (training.labels == label)) / 3


def test_an_images_fold_depends_on_the_seed_and_not_on_the_order(faces):
    training = faces.where("Training")
    order = np.random.default_rng(0).permutation(len(training))
    fold = fold_of(training, folds=4, seed=0)
    np.testing.assert_array_equal(fold_of(training.take(order), folds=4, seed=0), fold[order])
    assert (fold_of(training, folds=4, seed=1) != fold).any()


def test_a_class_with_fewer_images_than_folds_is_named(faces):
    few = faces.take(np.flatnonzero((faces.labels != 1) | (np.cumsum(faces.labels == 1) <= 2)))
    with pytest.raises(InvalidInput, match="data: disgust: must have an image for each of 3 folds, got '2 different"):
        fold_of(few, folds=3, seed=0)
