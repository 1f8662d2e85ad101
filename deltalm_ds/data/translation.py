"""Translation: the encoder reads one side of a pair as it is, the decoder predicts the other.

The form is that in which DeltaLM is fine-tuned: the target ends with `</s>`, and the decoder starts from
`</s>`, as in fairseq. The source keeps the `<s>` that every text of pre-training begins with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.objectives import Example, MaskKey
from deltalm_ds.data.pair_items import split_pair
from deltalm_ds.text.vocabulary import Vocabulary


def translation(tokens: NDArray[np.int32], key: MaskKey) -> Example:
    """The training example of one pair, `<s> source </s> target </s>` [tokens]; nothing is drawn by `key`."""
    source, target = split_pair(tokens)
    decoder_input = np.empty_like(target)
    decoder_input[0], decoder_input[1:] = Vocabulary.EOS, target[:-1]
    return Example(source, decoder_input, target)
