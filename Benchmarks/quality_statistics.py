"""What a difference between two configurations of a few seeds each says."""

import math
import statistics

# The 97.5 % quantile of Student's t by degrees of freedom; between two of these it is nearly linear in 1 / freedom.
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 12: 2.179, 16: 2.120,
             20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980}
NORMAL = 1.960


def quantile(freedom):
    """Half the width of a 95 % interval, in standard errors."""
    if freedom in QUANTILES:
        return QUANTILES[freedom]
    below = max(known for known in QUANTILES if known < freedom)
    above = min((known for known in QUANTILES if known > freedom), default=None)
    high, low, inverse = QUANTILES[below], QUANTILES[above] if above else NORMAL, 1 / above if above else 0
    return low + (high - low) * (1 / freedom - inverse) / (1 / below - inverse)


def pooled(groups):
    """The standard deviation over seeds that all groups share, and its degrees of freedom; None without two seeds."""
    groups = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    if freedom == 0:
        return None, 0
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups)
    return math.sqrt(squares / freedom), freedom


def difference(ours, reference, deviation, freedom):
    """The difference of two means, its standard error, and half of its 95 % interval (None where no seed was repeated)."""
    value = statistics.fmean(ours) - statistics.fmean(reference)
    if not freedom:
        return value, None, None
    error = deviation * math.sqrt(1 / len(ours) + 1 / len(reference))
    return value, error, quantile(freedom) * error


def verdict(value, half, claim):
    """What a row says. `claim` is what the paper says of ours against the reference: lower, higher or equal."""
    if half is None:
        return "one seed: no interval"
    if abs(value) <= half:
        return f"no difference shown, {abs(value) + half:.3f} at most" if claim == "equal" else "not shown at this size"
    if claim == "equal":
        return "a difference is seen: " + ("lower" if value < 0 else "higher")
    return "shown" if (value < 0) == (claim == "lower") else "the reverse is seen"


def is_close(value, error):
    """Whether a third seed would help: the difference is below three of its standard errors."""
    return error is not None and abs(value) < 3 * error


def self_check():
    """Values by hand, or from tables of Student's t."""
    assert quantile(4) == 2.776 and quantile(60) == 2.0
    assert abs(quantile(7) - 2.365) < 0.002 and abs(quantile(25) - 2.060) < 0.002 and abs(quantile(10**6) - 1.96) < 0.001
    # (1, 3): variance 2 of one degree; (5, 6, 7): variance 1 of two. (2 + 2 * 1) / 3.
    deviation, freedom = pooled([[1, 3], [5, 6, 7], [9]])
    assert freedom == 3 and abs(deviation - math.sqrt(4 / 3)) < 1e-12
    assert pooled([[1], [2]]) == (None, 0)
    value, error, half = difference([2.0, 4.0], [1.0, 1.0], 2.0, 3)
    assert (value, error) == (2.0, 2.0) and abs(half - 6.364) < 1e-9
    assert difference([1.0], [2.0], None, 0) == (-1.0, None, None)
    assert verdict(-0.1, 0.2, "lower") == "not shown at this size"
    assert verdict(-0.3, 0.2, "lower") == "shown" and verdict(-0.3, 0.2, "higher") == "the reverse is seen"
    assert verdict(0.1, 0.2, "equal") == "no difference shown, 0.300 at most" and verdict(0.3, 0.2, "equal").endswith("higher")
    assert is_close(0.5, 0.2) and not is_close(0.7, 0.2) and not is_close(0.7, None)
