"""A paired comparison that is looked at several times before its end: the Haybittle-Peto rule, by sign tests.

Between two models that are equally good, each discordant pair is a win or a loss with probability 1/2. So the losses
among the discordant pairs are a fair random walk, whatever share of the pairs is discordant. The chance that the rule
stops it is a sum over its paths: no approximation, at any count, cadence and number of looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

LEVEL = 0.025
"""One-sided level of all looks together."""
INTERIM = 0.00135
"""One-sided level of a look before the end: three standard errors (Haybittle 1971, Peto et al. 1976)."""


class Look(BaseModel):
    """What one look at the discordant pairs so far found.

    Attributes:
        discordant: pairs of which one of the two passed.
        losses: those that only the earlier model passed.
        needed: the least losses that show the newer model to be worse; ``None`` where no number would.
        p_value: one-sided; at the end with the chance that an earlier look stopped an equal model.
        spent: that chance; 0 before the end.
        final: whether it is the one at the end.
        level: one-sided, of all looks of the comparison together.
    """

    model_config = ConfigDict(frozen=True)
    discordant: int
    losses: int
    needed: int | None
    p_value: float
    spent: float
    final: bool
    level: float = LEVEL

    @property
    def worse(self) -> bool:
        """Whether the newer model is worse."""
        return self.needed is not None and self.losses >= self.needed


def look(discordant: Sequence[int], losses: int, *, final: bool, level: float = LEVEL) -> Look:
    """The newest of the looks so far.

    A look before the end needs an exact p of ``interim(level)``. The one at the end takes what these have left of
    ``level``, with the mid-p of the sign test: the exact p wastes a third of the level on few pairs, the mid-p keeps it
    within rounding (Fagerland, Lydersen and Laake 2013).

    Args:
        discordant: pairs of which one of the two passed, at each look so far; the last number is this look's.
        losses: at this look.
        final: whether there is no look after it.
        level: one-sided, of all looks together: ``LEVEL``, or a part of it where several comparisons share that.

    Raises:
        ValueError: there is no look, or there are more losses than discordant pairs.
    """
    if not discordant or not 0 <= losses <= discordant[-1]:
        raise ValueError(f"{losses} losses at looks of {list(discordant)} discordant pairs")
    from scipy.stats import binom  # half a second, which who only reads looks need not wait

    n, spent, bar = discordant[-1], 0.0, interim(level)
    p_values = binom.sf(np.arange(-1, n), n, 0.5)  # by losses
    if final:
        bar = level
        spent, unstopped = _walk(discordant[:-1], n, level=level)
        p_values = spent + unstopped[::-1].cumsum()[::-1] - unstopped / 2
    enough = np.flatnonzero(p_values <= bar)
    return Look(
        discordant=n,
        losses=losses,
        needed=int(enough[0]) if enough.size else None,
        p_value=min(1.0, float(p_values[losses])),
        spent=spent,
        final=final,
        level=level,
    )


def interim(level: float) -> float:
    """One-sided level of a look before the end, where all looks together have ``level``: the part that ``INTERIM`` is
    of ``LEVEL``."""
    return INTERIM * (level / LEVEL)


def detectable_loss(n: int, wins: int, *, spent: float = 0.0, power: float = 0.8, level: float = LEVEL) -> float | None:
    """How much worse the newer model must be for the look at the end to find it with that power.

    Earlier looks find some more; they count with what they took of the level alone.

    Args:
        n: pairs.
        wins: pairs that only the newer model passed; their share is taken as true.
        spent: the chance that an earlier look stopped an equal model.
        level: as ``look`` takes it.

    Returns:
        The difference of the pass rates, in (0, 1]; ``None`` where not even the greatest would be found.
    """
    if n == 0:
        return None
    from scipy.optimize import brentq

    share = wins / n
    lacking = lambda loss: power - _power(n, share, loss=loss, level=level - spent)  # noqa: E731
    greatest = 1 - 2 * share
    if greatest <= 0 or lacking(greatest) > 0:
        return None
    return float(brentq(lacking, 0.0, greatest, xtol=1e-5))


def _walk(looks: Sequence[int], end: int, *, level: float) -> tuple[float, NDArray[np.float64]]:
    """The chance that one of these looks stopped an equal model, and, by its losses at the end, that none did.

    Returns:
        The chance, and chances of shape (end + 1,).
    """
    losses, at, spent = np.ones(1), 0, 0.0
    for n in looks:
        losses, at = _further(losses, min(n, end) - at), max(at, min(n, end))
        stopped = int(_binom().isf(interim(level), at, 0.5)) + 1
        spent += float(losses[stopped:].sum())
        losses[stopped:] = 0.0
    return spent, _further(losses, end - at)


def _further(losses: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    """Chances by losses after so many more discordant pairs of equal models."""
    return np.convolve(losses, _binom().pmf(np.arange(more + 1), more, 0.5)) if more > 0 else losses


def _power(n: int, wins: float, *, loss: float, level: float) -> float:
    """How often a model that is worse by ``loss``, with such a share of wins, is found worse by one look."""
    binom, discordant = _binom(), 2 * wins + loss
    span = binom.ppf((1e-9, 1 - 1e-9), n, discordant)
    pairs = np.arange(int(span[0]), int(span[1]) + 1)
    needed = binom.isf(level, pairs, 0.5) + 1
    fewer = (binom.sf(needed - 2, pairs, 0.5) + binom.sf(needed - 1, pairs, 0.5)) / 2  # the mid-p of one loss less
    needed = np.where(fewer <= level, needed - 1, needed)
    found = binom.sf(needed - 1, pairs, (wins + loss) / discordant if discordant else 0.5)
    return float(np.sum(binom.pmf(pairs, n, discordant) * found))


def _binom() -> Any:
    from scipy.stats import binom

    return binom
