"""Abstractive summarization, as on XGiga."""

from deltalm_ds.downstream.task import SearchDefaults, Task

TASK = Task(
    name="summarization",
    summary="text -> its summary or headline, in its language",
    same_language=True,
    # The summary is in the language of the text, which the model sees.
    language_tags=False,
    metric="rouge",
    other_metrics=("rouge1", "rouge2"),
    search=SearchDefaults(max_length_b=128),
)
