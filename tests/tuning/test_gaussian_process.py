"""The process against scikit-learn's, its gradient against finite differences."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from fer_search.tuning.gaussian_process import JITTER, Kernel, Objective, Points, Posterior, fit, prior_kernel

TINY = 1e-14


def curves(num_trials, num_columns=3, seed=0):
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.random((num_trials, num_columns)), 3, axis=0)
    epoch = np.tile([1.0, 3.0, 9.0], num_trials)
    points = Points(x, epoch, np.repeat(np.arange(num_trials), 3))
    values = np.sin(5 * x[:, 0]) - 1 / epoch + 0.1 * rng.standard_normal(len(epoch))
    return points, (values - values.mean()) / values.std()


def kernel_with(mean=TINY, asymptote=TINY, shape=TINY, trial=TINY, noise=0.01, time=1.0, lengths=(0.5, 0.7, 0.9)):
    scales = np.log([mean, asymptote, shape, trial, noise, time])
    return Kernel(np.arange(len(lengths)), scales, np.log(lengths))


def test_at_one_epoch_it_is_the_matern_process_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, asked, values = rng.random((30, 3)), rng.random((10, 3)), rng.standard_normal(30)
    ours = Posterior(kernel_with(asymptote=1.3), Points(x, np.full(30, 9.0), np.arange(30)), values)
    theirs = GaussianProcessRegressor(
        ConstantKernel(1.3) * Matern([0.5, 0.7, 0.9], nu=2.5), alpha=0.01 + JITTER, optimizer=None
    ).fit(x, values)
    mean, std = ours.moments(Points(asked, np.full(10, 9.0), np.full(10, -1)))
    expected_mean, expected_std = theirs.predict(asked, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-8)
    np.testing.assert_allclose(std, expected_std, atol=1e-8)


def test_over_the_epochs_of_one_configuration_it_is_an_exponential_process_in_the_logarithm_of_the_epoch():
    epoch, values = np.array([1.0, 3.0, 9.0]), np.array([-1.0, 0.2, 0.8])
    points = Points(np.zeros((3, 3)), epoch, np.zeros(3, int))
    theirs = GaussianProcessRegressor(
        ConstantKernel(0.7) * Matern(2.0, nu=0.5), alpha=0.01 + JITTER, optimizer=None
    ).fit(np.log(epoch)[:, None], values)
    for kernel in (kernel_with(shape=0.7, time=2.0), kernel_with(trial=0.7, time=2.0)):
        mean, std = Posterior(kernel, points, values).moments(Points(np.zeros((1, 3)), np.array([27.0]), np.zeros(1)))
        expected_mean, expected_std = theirs.predict(np.log([[27.0]]), return_std=True)
        np.testing.assert_allclose(mean, expected_mean, atol=1e-8)
        np.testing.assert_allclose(std, expected_std, atol=1e-8)


def test_the_marginal_likelihood_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    x, values = rng.random((20, 3)), rng.standard_normal(20)
    kernel = kernel_with(asymptote=0.8)
    ours, _ = Objective(Points(x, np.full(20, 3.0), np.arange(20)), values, kernel.groups)(
        np.concatenate([kernel.log_scales, kernel.log_lengths])
    )
    theirs = GaussianProcessRegressor(
        ConstantKernel(0.8) * Matern([0.5, 0.7, 0.9], nu=2.5), alpha=0.01 + JITTER, optimizer=None
    ).fit(x, values)
    assert ours == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-8)


@pytest.mark.parametrize("groups", [[0, 1, 2], [0, 0, 1]])
def test_the_gradient_is_that_of_finite_differences(groups):
    points, values = curves(12)
    prior = prior_kernel(np.array(groups))
    objective = Objective(points, values, prior.groups)
    at = np.concatenate([prior.log_scales, prior.log_lengths]) + 0.1
    _, gradient = objective(at)
    steps = 1e-5 * np.eye(len(at))
    expected = [(objective(at + step)[0] - objective(at - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


def test_a_fit_finds_which_parameter_matters_and_is_reproducible():
    points, values = curves(30)
    kernel, again = fit(points, values, np.arange(3)), fit(points, values, np.arange(3))
    lengths = np.exp(kernel.log_lengths)
    assert lengths[0] < 0.5 * min(lengths[1], lengths[2])
    np.testing.assert_array_equal(kernel.log_scales, again.log_scales)


def test_a_believed_point_changes_no_mean_and_removes_doubt():
    points, values = curves(10)
    posterior = Posterior(prior_kernel(np.arange(3)), points, values)
    believed = Points(np.full((1, 3), 0.5), np.array([9.0]), np.array([99]))
    near = Points(np.full((1, 3), 0.52), np.array([9.0]), np.array([-1]))
    mean, std = posterior.moments(near)
    new_mean, new_std = posterior.believing(believed).moments(near)
    np.testing.assert_allclose(new_mean, mean, atol=1e-6)
    assert new_std < 0.9 * std
