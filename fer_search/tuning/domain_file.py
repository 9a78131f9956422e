"""Read one table of `[space]`: a range or choices, the value of the first trial, and a prior.

What is wrong is told to `add(key, rule, value)`; `label` is the table's own key.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Real
from optuna.distributions import IntDistribution as Integer

from fer_search.errors import nearest_name
from fer_search.tuning.encoding import to_unit
from fer_search.tuning.space import Distribution, Prior, ends

Add = Callable[[str, str, object], None]

MOST_STEPS = 10**9
KEYS = ("low", "high", "log", "step", "choices", "default", "when", "prior")


def read_domain(table: object, default: object, *, label: str, add: Add) -> Distribution | None:
    """Read the domain of a parameter with a `default` of the type that its values have; None if it is wrong."""
    if not isinstance(table, Mapping):
        add(label, "must be a table with low and high, or with choices", table)
        return None
    if unknown := sorted(table.keys() - set(KEYS)):
        for key in unknown:
            add(f"{label}.{key}", f"must be one of {', '.join(KEYS)}{nearest_name(key, KEYS)}", table[key])
        return None
    return _choices(table, label, add) if "choices" in table else _range(table, default, label, add)


def read_default(table: Mapping[str, Any], domain: Distribution, default: object, *, label: str, add: Add) -> Any:
    """Return the value of the first trial, which is `default` where the table names none.

    In place of a wrong one it is an end of the domain, so that the rest of the file can be judged.
    """
    # The first trial answers whether the search beat the settings that one came with, so it must lie in the space.
    value = table.get("default", default)
    if not contains(domain, value):
        add(label, "must contain the default, or name another one as `default`", value)
        value = ends(domain)[0]
    return as_stored(domain, value)


def read_prior(
    table: Mapping[str, Any], domain: Distribution, *, label: str, add: Add
) -> Prior | tuple[float, ...] | None:
    """Return the prior in the form of `Dimension.prior`, or None where the table has none or a wrong one."""
    prior = table.get("prior")
    if prior is None:
        return None
    if isinstance(domain, Categorical):
        return _weights(prior, domain, label, add)
    if not isinstance(prior, Mapping) or prior.keys() != {"center", "width"}:
        add(f"{label}.prior", "must be a table with center and width", prior)
        return None
    center, width = prior["center"], prior["width"]
    inside = is_number(center) and domain.low <= center <= domain.high
    if not inside:
        add(f"{label}.prior.center", f"must be from {domain.low!r} to {domain.high!r}", center)
    if not (is_number(width) and 0 < width <= 1):
        add(f"{label}.prior.width", "must be above 0 and at most 1, the whole range", width)
    elif inside:
        return Prior(float(to_unit(domain, center)), float(width))
    return None


def contains(domain: Distribution, value: object) -> bool:
    """Return whether `value` lies in `domain`; true is not 1 here."""
    if isinstance(domain, Categorical):
        return any(choice == value and isinstance(choice, bool) == isinstance(value, bool) for choice in domain.choices)
    if isinstance(domain, Integer):
        return is_int(value) and value in range(domain.low, domain.high + 1, domain.step)
    if not is_number(value) or not domain.low <= value <= domain.high:
        return False
    steps = (value - domain.low) / domain.step if domain.step else 0.0
    return abs(steps - round(steps)) < 1e-8


def as_stored(domain: Distribution, value: Any) -> Any:
    """Return a value of `domain` as Optuna gives it: TOML's 1 is 1.0 in a range of real numbers."""
    return float(value) if isinstance(domain, Real) else value


def is_int(value: object) -> TypeGuard[int]:
    """Return whether `value` is a whole number of at most 64 bits, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _choices(table: Mapping[str, Any], label: str, add: Add) -> Categorical | None:
    choices = table["choices"]
    if table.keys() & {"low", "high", "log", "step"}:
        add(label, "must have either choices or low and high", dict(table))
    elif not isinstance(choices, list) or len(choices) < 2:
        add(f"{label}.choices", "must be a list of at least two different values", choices)
    elif not all(isinstance(choice, str | bool | int | float) for choice in choices):
        add(f"{label}.choices", "must hold strings, booleans or numbers", choices)
    elif len(set(choices)) < len(choices):
        add(f"{label}.choices", "must be a list of at least two different values", choices)
    else:
        return Categorical(choices)
    return None


def _range(table: Mapping[str, Any], default: object, label: str, add: Add) -> Distribution | None:
    if isinstance(default, bool | str):
        add(label, "must have choices, since the parameter is not a number", dict(table))
        return None
    low, high, log, step = (table.get(part) for part in ("low", "high", "log", "step"))
    whole = is_int(default)
    ends = {"low": low, "high": high} | ({} if step is None else {"step": step})
    wrong = {part: value for part, value in ends.items() if not (is_int(value) if whole else is_number(value))}
    for part, value in wrong.items():
        add(f"{label}.{part}", f"must be a {'whole' if whole else 'finite'} number", value)
    if not isinstance(log, bool | None):
        add(f"{label}.log", "must be true or false", log)
        return None
    if wrong:
        return None
    assert low is not None
    assert high is not None
    if not low < high:
        add(f"{label}.high", f"must be above low = {low!r}", high)
    elif log and low <= 0:
        add(f"{label}.low", "must be above 0 on a log scale", low)
    elif log and step is not None:
        add(f"{label}.step", "must not be given on a log scale", step)
    elif step is not None and not 0 < step <= high - low:
        add(f"{label}.step", f"must be above 0 and at most high - low = {high - low!r}", step)
    elif step is not None and high - low > MOST_STEPS * step:
        add(f"{label}.step", f"must cut the range into at most {MOST_STEPS:,} parts", step)
    elif whole:
        return Integer(low, high, log=bool(log), step=step or 1)
    else:
        return Real(float(low), float(high), log=bool(log), step=None if step is None else float(step))
    return None


def _weights(prior: object, domain: Categorical, label: str, add: Add) -> tuple[float, ...] | None:
    count = len(domain.choices)
    if not isinstance(prior, list) or len(prior) != count or not all(is_number(w) and w > 0 for w in prior):
        add(f"{label}.prior", f"must be a list of {count} weights above 0, one for each choice", prior)
        return None
    return tuple(weight / sum(prior) for weight in prior)
