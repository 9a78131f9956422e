import numpy as np
import pytest
import timm.data.mixup as timm_mixup
import torch
import torch.nn.functional as F
from scipy.stats import beta, ks_2samp, kstest
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import RandomErasing

from fer_search.data.faces import EMOTIONS
from fer_search.recipe import Recipe
from fer_search.training import augment as ours
from fer_search.training import boxes
from fer_search.training.loss import smooth_labels

RANDAUGMENT = {
    "randaugment_magnitude": 9.0, "randaugment_operations": 2, "randaugment_probability": 0.8,
    "randaugment_probability_fear": 0.95, "randaugment_probability_sad": 0.9,
}  # fmt: skip
EVERYTHING = {
    "flip_probability": 0.5, "shift_pixels": 4, **RANDAUGMENT, "erasing_probability": 0.3,
    "mixup_alpha": 0.4, "cutmix_alpha": 0.5, "mix_probability": 0.5, "cutmix_share": 0.5,
}  # fmt: skip
STILL = {
    "flip_probability": 0.0, "shift_pixels": 0, "erasing_probability": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0,
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(faces):
    return torch.tensor(faces.pixels[:6]).unsqueeze(1) / 255


def test_the_chance_of_randaugment_depends_on_the_emotion_by_name():
    recipe = Recipe().replace(RANDAUGMENT)
    found = dict(zip(EMOTIONS, ours.randaugment_chance(torch.arange(7), EMOTIONS, recipe).tolist(), strict=True))
    assert found.pop("fear") == pytest.approx(0.95)
    assert found.pop("sad") == pytest.approx(0.9)
    assert list(found.values()) == pytest.approx([0.8] * 5)


@pytest.mark.parametrize(
    ("field", "emotions"),
    [
        ("randaugment_probability_fear", {"fear"}),
        ("randaugment_probability_sad", {"sad"}),
        ("randaugment_probability", {"angry", "disgust", "happy", "surprise", "neutral"}),
    ],
)
def test_only_images_of_an_emotion_with_a_chance_are_touched(faces, field, emotions):
    never = {name: 0.0 for name in RANDAUGMENT if "probability" in name}
    recipe = Recipe().replace({**STILL, **RANDAUGMENT, **never, field: 1.0})
    pixels = torch.tensor(faces.pixels[:140])
    labels = torch.arange(140) % 7
    images = ours.distort(pixels, labels, EMOTIONS, recipe, generator())
    touched = ((images[:, 0] - pixels / 255).abs() > 1e-3).any(2).any(1)
    assert {EMOTIONS[label] for label in labels[touched]} == emotions


def test_with_equal_chances_the_label_has_no_say_in_the_image(faces):
    equal = {name: 0.6 for name in RANDAUGMENT if "probability" in name}
    recipe = Recipe().replace({**EVERYTHING, **equal})
    pixels = torch.tensor(faces.pixels[:70])
    labels = torch.arange(70) % 7
    first = ours.distort(pixels, labels, EMOTIONS, recipe, generator())
    assert torch.equal(first, ours.distort(pixels, labels.flip(0), EMOTIONS, recipe, generator()))


def test_flips_happen_as_often_as_asked_and_mirror_left_and_right(images):
    many = images[:1].expand(20_000, 1, 48, 48)
    flipped = ours.random_flip(many, 0.3, generator())
    is_flipped = (flipped == images[:1].flip(-1)).all(dim=(1, 2, 3))
    assert float(is_flipped.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert bool(((flipped == images[:1]).all(dim=(1, 2, 3)) | is_flipped).all())


def torchvisions_boxes(num):
    """Draw top, left, height and width (num, 4) of boxes for a 48x48 image."""
    area, aspect = boxes.ERASED_AREA, boxes.ERASED_ASPECT
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.zeros(1, 48, 48)
        return np.array([RandomErasing.get_params(image, area, aspect, value=[0.0])[:4] for _ in range(num)])


def test_erased_boxes_are_distributed_as_torchvisions():
    inside = boxes.erasing_boxes(5_000, 48, 48, generator()).numpy()
    rows, columns = inside.any(2), inside.any(1)
    assert (inside == rows[:, :, None] & columns[:, None, :]).all()
    top, left, height, width = rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)
    expected = dict(zip(("top", "left", "height", "width"), torchvisions_boxes(5_000).T, strict=True))
    for found, name in ((top, "top"), (left, "left"), (height, "height"), (width, "width")):
        assert ks_2samp(found, expected[name]).pvalue > 1e-3, name
    assert ks_2samp(height * width, expected["height"] * expected["width"]).pvalue > 1e-3
    assert ks_2samp(height / width, expected["height"] / expected["width"]).pvalue > 1e-3
    assert (min(top), max(top + height), min(left), max(left + width)) == (0, 48, 0, 48)
    assert (height * width / 48**2).mean() == pytest.approx(0.11, abs=0.004)


def test_an_erased_box_ends_where_a_narrow_image_ends():
    inside = boxes.erasing_boxes(2_000, 8, 96, generator())
    height, width = inside.any(2).sum(1), inside.any(1).sum(1)
    assert torch.equal(inside.sum((1, 2)), height * width)
    assert int(height.max()) == 8  # uncut, a box would be up to 23 rows high
    assert int(height.min()) >= 1
    assert int(width.min()) >= 1


def test_erasing_fills_as_many_boxes_as_asked_with_uniform_noise_and_leaves_the_rest():
    images = torch.full((4_000, 1, 48, 48), -1.0)
    erased = ours.random_erasing(images, 0.3, generator())
    noise = erased[erased != -1]
    assert float((erased != -1).any(3).any(2).float().mean()) == pytest.approx(0.3, abs=0.04)
    assert len(noise) / images.numel() == pytest.approx(0.3 * 0.11, abs=0.005)
    assert kstest(noise[::20].numpy(), "uniform").pvalue > 1e-3
    assert len(noise.unique()) > 0.95 * len(noise)


@pytest.mark.parametrize("switch", ["mixup_alpha", "cutmix_alpha"])
def test_mixing_keeps_images_and_targets_in_step(images, switch):
    """Constant images show their share: an image of ones mixed with zeros has the mean that its target says."""
    off = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, switch: 1.0, "mix_probability": 1.0}
    labels = torch.arange(64) % 2
    flat = labels.float()[:, None, None, None].expand(64, 1, 48, 48)
    mixed, targets = ours.mix(flat, F.one_hot(labels, 7).float(), Recipe().replace(off), generator())
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert len(mixed.unique()) > 40 if switch == "mixup_alpha" else mixed.unique().tolist() == [0.0, 1.0]


def test_mixup_targets_equal_timms():
    recipe = Recipe().replace({"mixup_alpha": 1.0, "cutmix_alpha": 0.0, "mix_probability": 1.0})
    labels = torch.tensor([3, 5])
    pixels = torch.stack([torch.zeros(1, 48, 48), torch.ones(1, 48, 48)])
    mixed, targets = ours.mix(pixels, F.one_hot(labels, 7).float(), recipe, generator())
    keep = 1 - float(mixed[0].mean())  # the first image is black: what is bright in it came from the second
    expected = timm_mixup.mixup_target(labels, 7, lam=keep, smoothing=0.1)  # timm mixes a batch with its mirror
    torch.testing.assert_close(smooth_labels(targets, 0.1)[0], expected[0], atol=1e-5, rtol=0)


@pytest.fixture
def numpys_random_state():
    """Give the global state back that timm draws from."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.mark.parametrize("keep", [0.03, 0.4, 0.71, 0.99])
@pytest.mark.usefixtures("numpys_random_state")
def test_cutmix_boxes_equal_timms_around_the_same_centre(keep):
    for seed in range(30):
        np.random.seed(seed)
        (top, bottom, left, right), share = timm_mixup.cutmix_bbox_and_lam((1, 48, 48), keep)
        np.random.seed(seed)
        row, column = torch.tensor([np.random.randint(48)]), torch.tensor([np.random.randint(48)])
        found = boxes.cutmix_boxes(torch.tensor([keep]), row, column, 48, 48)[0]
        expected = torch.zeros(48, 48, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(found, expected)
        assert 1 - float(found.float().mean()) == pytest.approx(share, abs=1e-6)


def test_cutmix_targets_equal_timms_for_the_same_box(monkeypatch):
    recipe = Recipe().replace({"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "mix_probability": 1.0})
    labels = torch.tensor([3, 5])
    pixels = torch.stack([torch.zeros(1, 48, 48), torch.ones(1, 48, 48)])
    shares = set()
    for seed in range(20):
        mixed, targets = ours.mix(pixels, F.one_hot(labels, 7).float(), recipe, generator(seed))
        bright = mixed[0, 0] == 1  # the first image is black: the box is what came from the second
        rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
        box = [int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1]
        monkeypatch.setattr(timm_mixup, "rand_bbox", lambda *_, box=box, **__: box)
        _, share = timm_mixup.cutmix_bbox_and_lam((1, 48, 48), 0.5)
        expected = timm_mixup.mixup_target(labels, 7, lam=share, smoothing=0.1)
        torch.testing.assert_close(smooth_labels(targets, 0.1)[0], expected[0], atol=1e-5, rtol=0)
        shares.add(share)
    assert len(shares) > 10


@pytest.mark.parametrize("alpha", [0.4, 2.0])
def test_the_kept_share_follows_the_beta_distribution(alpha):
    drawn = ours._beta(alpha, 5_000, generator()).numpy()
    assert kstest(drawn, beta(alpha, alpha).cdf).pvalue > 1e-3


def test_a_tiny_alpha_keeps_or_replaces_and_never_gives_nan():
    drawn = ours._beta(1e-3, 2_000, generator())
    assert bool(torch.isfinite(drawn).all())


@pytest.mark.parametrize("share", [0.5, 0.2, 0.9])
def test_cutmix_gets_its_share_of_the_mixed_images_and_mixup_the_others(share):
    changes = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "mix_probability": 0.6, "cutmix_share": share}
    labels = torch.arange(4_000) % 2
    flat = labels.float()[:, None, None, None].expand(4_000, 1, 48, 48)
    mixed, targets = ours.mix(flat, F.one_hot(labels, 7).float(), Recipe().replace(changes), generator())
    grey = ((mixed > 0.001) & (mixed < 0.999)).any(3).any(2)[:, 0]  # CutMix of black and white has no grey
    patched = ~grey & (targets.amax(1) < 1)
    assert float(grey.float().mean()) == pytest.approx(0.6 * (1 - share), abs=0.04)
    assert float(patched.float().mean()) == pytest.approx(0.6 * share, abs=0.04)


def test_the_generator_alone_decides_and_images_stay_in_range(faces):
    recipe = Recipe().replace(EVERYTHING)
    pixels, labels = torch.tensor(faces.pixels[:33]), torch.tensor(faces.labels[:33])
    first = ours.augment(pixels, labels, EMOTIONS, recipe, generator(1))
    again = ours.augment(pixels, labels, EMOTIONS, recipe, generator(1))
    other = ours.augment(pixels, labels, EMOTIONS, recipe, generator(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (33, 1, 48, 48)
    assert first[1].shape == (33, 7)
    assert 0 <= float(first[0].min()) <= float(first[0].max()) <= 1
    torch.testing.assert_close(first[1].sum(1), torch.ones(33))


CHANGES = {
    "flip_probability": 0.0, "shift_pixels": 0, "randaugment_magnitude": 3.0, "randaugment_operations": 4,
    "randaugment_probability": 0.0, "randaugment_probability_fear": 0.0, "randaugment_probability_sad": 0.0,
    "erasing_probability": 0.0, "mixup_alpha": 2.0, "cutmix_alpha": 2.0, "mix_probability": 0.9, "cutmix_share": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_every_augmentation_field_changes_the_images_or_the_targets(faces, field):
    pixels, labels = torch.tensor(faces.pixels[:64]), torch.arange(64) % 7
    recipe = Recipe().replace(EVERYTHING)
    before = ours.augment(pixels, labels, EMOTIONS, recipe, generator())
    after = ours.augment(pixels, labels, EMOTIONS, recipe.replace({field: CHANGES[field]}), generator())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_no_augmentation_field_is_missing_from_that_test():
    fields = list(Recipe.model_fields)
    assert set(CHANGES) == set(fields[fields.index("flip_probability") : fields.index("precision")])


class HostValues(TorchDispatchMode):
    """Lists the tensors that are made of Python values, each of which a GPU would have to be sent."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.lift_fresh.default:
            self.found.append(args[0].shape)
        return function(*args, **(kwargs or {}))


def test_a_device_is_neither_asked_for_a_value_nor_sent_one():
    """Fake tensors have no values: whoever asks for one gets an exception in place of a wait for the device."""
    random = generator()
    with FakeTensorMode(), HostValues() as host_values:
        pixels, labels = torch.zeros(8, 48, 48, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
        soft = torch.zeros(8, 7)
        recipe = Recipe().replace({**EVERYTHING, "soft_label_weight": 0.5})
        images, targets = ours.augment(pixels, labels, EMOTIONS, recipe, random, soft)
    assert images.shape == (8, 1, 48, 48)
    assert targets.shape == (8, 7)
    assert host_values.found == []


def test_with_everything_off_only_the_range_changes(faces):
    pixels, labels = torch.tensor(faces.pixels[:8]), torch.tensor(faces.labels[:8])
    recipe = Recipe().replace({**STILL, "randaugment_magnitude": 0.0})
    images, targets = ours.augment(pixels, labels, EMOTIONS, recipe, generator())
    assert torch.equal(images[:, 0], pixels / 255)
    assert torch.equal(targets, F.one_hot(labels, 7).float())


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_target_holds_the_soft_label_by_its_share_before_images_are_mixed(faces, weight):
    pixels, labels = torch.tensor(faces.pixels[:16]), torch.tensor(faces.labels[:16])
    soft = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(7), 16), dtype=torch.float32)
    recipe = Recipe().replace({**STILL, "randaugment_magnitude": 0.0, "soft_label_weight": weight})
    _, targets = ours.augment(pixels, labels, EMOTIONS, recipe, generator(), soft)
    expected = F.one_hot(labels, 7) * (1 - weight) + soft * weight
    torch.testing.assert_close(targets, expected)
    mixing = recipe.replace({"mixup_alpha": 0.4, "mix_probability": 1.0})
    images, mixed = ours.augment(pixels, labels, EMOTIONS, mixing, generator(), soft)
    keep = (mixed - expected.roll(1, 0))[:, 0] / (expected - expected.roll(1, 0))[:, 0]
    torch.testing.assert_close(torch.lerp(pixels.roll(1, 0) / 255, pixels / 255, keep[:, None, None]), images[:, 0])
