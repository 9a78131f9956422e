import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fer_search.recipe import Recipe
from fer_search.training.loss import class_weights, image_losses, smooth_labels
from fer_search.training.model import Outputs

FER2013 = [3995, 436, 4097, 7215, 4830, 3171, 4965]  # images of each emotion in Training


def recipe(**changes):
    return Recipe().replace({"label_smoothing": 0.1, "class_weight_power": 0.0, **changes})


def batch(seed=0, num=9):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, 7)), rng.dirichlet(np.ones(7), size=num)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_label_smoothing_equals_torchs():
    logits, labels = torch.randn(9, 7), torch.arange(9) % 7
    targets = smooth_labels(F.one_hot(labels, 7).float(), 0.1)
    torch.testing.assert_close(F.cross_entropy(logits, targets), F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_the_loss_of_soft_weighted_targets_equals_a_numpy_computation():
    logits, targets = batch()
    weights = np.array([1.0, 8.0, 1.0, 0.5, 0.8, 1.2, 0.8])
    expected = -(log_softmax(logits) * (0.9 * targets + 0.1 / 7)).sum(1) * (targets * weights).sum(1)
    outputs = Outputs(torch.tensor(logits), None, [])
    found = image_losses(outputs, torch.tensor(targets).float(), torch.tensor(weights).float(), recipe())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_auxiliary_and_emotion_heads_are_added_with_their_weights():
    (logits, targets), (first, _), (second, _), (emotion, _) = (batch(seed) for seed in range(4))
    smoothed = 0.9 * targets + 0.1 / 7
    cross_entropy = [-(log_softmax(each) * smoothed).sum(1) for each in (logits, first, second)]
    yes, no = -np.log1p(np.exp(-emotion)), -np.log1p(np.exp(emotion))
    binary = -(smoothed * yes + (1 - smoothed) * no).mean(1)
    expected = cross_entropy[0] + 0.4 * (cross_entropy[1] + cross_entropy[2]) / 2 + 0.7 * binary
    outputs = Outputs(torch.tensor(logits), torch.tensor(emotion), [torch.tensor(first), torch.tensor(second)])
    settings = recipe(auxiliary_weight=0.4, emotion_heads_weight=0.7)
    found = image_losses(outputs, torch.tensor(targets).float(), torch.ones(7), settings)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_are_powers_of_rarity_with_mean_one_over_the_images(power):
    labels = torch.repeat_interleave(torch.arange(7), torch.tensor(FER2013))
    weights = class_weights(labels, power, 7)
    assert float(weights[labels].mean()) == pytest.approx(1, rel=1e-4)
    assert float(weights[1] / weights[3]) == pytest.approx((7215 / 436) ** power, rel=1e-4)


def test_balanced_weights_equal_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.repeat_interleave(torch.arange(7), torch.tensor(FER2013))
    expected = compute_class_weight("balanced", classes=np.arange(7), y=labels.numpy())
    np.testing.assert_allclose(class_weights(labels, 1.0, 7).numpy(), expected, rtol=1e-4)


def test_a_class_without_images_has_a_finite_weight():
    assert bool(torch.isfinite(class_weights(torch.tensor([0, 0, 3]), 1.0, 7)).all())


def test_class_weights_do_not_pull_a_happy_face_towards_disgust():
    """With torch's own weighted, smoothed cross entropy the best answer to a happy face is 18.5 % disgust."""
    labels = torch.repeat_interleave(torch.arange(7), torch.tensor(FER2013))
    weights = class_weights(labels, 1.0, 7)
    happy = F.one_hot(torch.tensor([3]), 7).float()

    def best_answer(loss):
        logits = torch.zeros(1, 7, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], lr=0.5, max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12)

        def closure():
            optimizer.zero_grad()
            value = loss(logits)
            value.backward()
            return value

        optimizer.step(closure)
        return logits.detach().softmax(1)[0]

    theirs = best_answer(lambda z: F.cross_entropy(z, torch.tensor([3]), weight=weights, label_smoothing=0.1))
    ours = best_answer(lambda z: image_losses(Outputs(z, None, []), happy, weights, recipe()).sum())
    assert float(theirs[1]) == pytest.approx(0.185, abs=0.005)
    torch.testing.assert_close(ours, smooth_labels(happy, 0.1)[0], atol=1e-4, rtol=0)


def test_the_size_of_the_loss_does_not_jump_between_mixed_and_unmixed_images():
    """On average over the training distribution the weight of an image is 1, whether it is mixed or not."""
    labels = torch.repeat_interleave(torch.arange(7), torch.tensor(FER2013))
    weights = class_weights(labels, 1.0, 7)
    targets = F.one_hot(labels, 7).float()
    other = targets[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    mixed = 0.3 * targets + 0.7 * other
    assert float((mixed @ weights).mean()) == pytest.approx(float((targets @ weights).mean()), rel=1e-4)
