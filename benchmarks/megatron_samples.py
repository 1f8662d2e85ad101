"""megatron-core's T5 dataset over a dataset that IndexedWriter has written.

It is set up as Megatron-LM's pretrain_t5.py does. In place of a tokenizer it has what the dataset asks one
for, with the ids of our vocabulary.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch.distributed as dist

from deltalm_ds.text.vocabulary import Vocabulary

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what is not installed beside it
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.t5_dataset import T5MaskedWordPieceDataset, T5MaskedWordPieceDatasetConfig
    from megatron.core.datasets.utils import Split


def open_dataset(
    prefix: Path, vocabulary: Vocabulary, cache: Path, source_length: int, num_samples: int
) -> T5MaskedWordPieceDataset:
    """Samples of 15 % masked; `source_length` bounds their text, `cache` holds the index that is built."""
    words = {token: str(token) for token in range(vocabulary.num_rows)}
    special = SimpleNamespace(
        cls=Vocabulary.BOS,
        sep=Vocabulary.EOS,
        bos=Vocabulary.BOS,
        eos=Vocabulary.EOS,
        eod=Vocabulary.EOS,
        pad=Vocabulary.PAD,
        mask=vocabulary.mask_id,
        inv_vocab=words,
        special_tokens_dict={},
        unique_identifiers={"vocabulary": vocabulary.num_pieces},
        additional_special_tokens_ids=list(
            range(vocabulary.first_sentinel_id, vocabulary.first_sentinel_id + vocabulary.num_sentinels)
        ),
    )
    config = T5MaskedWordPieceDatasetConfig(
        random_seed=1,
        sequence_length=source_length,
        sequence_length_decoder=source_length,
        split="1",
        path_to_cache=str(cache),
        tokenizer=special,
        masking_probability=0.15,
        short_sequence_probability=0.1,
        masking_max_ngram=10,
        masking_do_full_word=True,
        masking_do_permutation=False,
        masking_use_longer_ngrams=False,
        masking_use_geometric_distribution=True,
    )
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:  # building the index asks for the rank
        dataset = IndexedDataset(str(prefix))
        documents = np.arange(len(dataset.document_indices) - 1)
        return T5MaskedWordPieceDataset(dataset, str(prefix), documents, num_samples, Split.train, config)
    finally:
        dist.destroy_process_group()
