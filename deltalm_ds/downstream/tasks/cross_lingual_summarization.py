"""Summarization in another language, as on WikiLingua in GEM's rows."""

from deltalm_ds.downstream.task import SearchDefaults, Task

TASK = Task(
    name="cross-lingual-summarization",
    summary="text -> its summary in another language",
    # A text can be summarised in any language. With English alone as a target the tag costs one token.
    language_tags=True,
    metric="rouge",
    other_metrics=("rouge1", "rouge2"),
    search=SearchDefaults(max_length_b=200),
)
