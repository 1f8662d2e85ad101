from __future__ import annotations

import numpy as np

from deltalm_ds.data.translation import translation


def test_the_encoder_reads_one_side_and_the_decoder_starts_from_the_end_of_sentence() -> None:
    example = translation(np.array([0, 11, 12, 13, 2, 21, 22, 2], dtype=np.int32), key=(1, 2))
    assert example.source.tolist() == [0, 11, 12, 13, 2]
    assert example.decoder_input.tolist() == [2, 21, 22]
    assert example.labels.tolist() == [21, 22, 2]
    assert {part.dtype for part in example} == {np.dtype(np.int32)}


def test_a_target_without_a_piece() -> None:
    example = translation(np.array([0, 11, 2, 2], dtype=np.int32), key=(1, 2))
    assert (example.source.tolist(), example.decoder_input.tolist()) == ([0, 11, 2], [2])
    assert example.labels.tolist() == [2]
