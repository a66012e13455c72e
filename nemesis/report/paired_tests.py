"""Paired tests of differences, adjusted for their number."""

from collections.abc import Sequence

from scipy import stats

TESTS = {"wilcoxon": "Wilcoxon signed-rank test", "t": "paired t test"}
LEVEL, STRICT_LEVEL = 0.05, 0.01
TIE = 1e-9  # equal counts can give accuracies that differ in the last bit


def paired_test(gains: Sequence[float], test: str = "wilcoxon") -> tuple[float | None, str]:
    """Test whether paired differences are centred at zero.

    Args:
        gains: the differences. The Wilcoxon test leaves out zeros.
        test: "wilcoxon" or "t".

    Returns:
        The two-sided p-value, or None if the test does not apply; and why, or a caveat.
    """
    if test == "t":
        return _t_test(gains)
    ranked = [gain for gain in gains if gain]
    if not ranked:
        return None, "no pair differs"
    p = float(stats.wilcoxon(ranked).pvalue)
    lowest = 2.0 ** (1 - len(ranked))
    if lowest > LEVEL:
        return p, f"too few pairs: with {len(ranked)} that differ, p is never below {lowest:g}"
    return p, ""


def _t_test(gains: Sequence[float]) -> tuple[float | None, str]:
    if len(gains) < 2:
        return None, "too few pairs: the t test needs 2"
    if max(gains) - min(gains) < TIE:
        return None, "all differences are equal"
    p = float(stats.ttest_1samp(gains, 0.0).pvalue)
    return p, "few pairs: p assumes normally distributed differences" if len(gains) < 10 else ""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests by the method of Holm (1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted
