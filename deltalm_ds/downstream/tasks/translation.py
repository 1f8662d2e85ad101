"""Machine translation."""

from deltalm_ds.downstream.task import SearchDefaults, Task

TASK = Task(
    name="translation",
    summary="sentence -> the same in another language; line-aligned files, TSV, JSONL, WMT SGML or XML",
    # A sentence can be translated into any language: only a tag says which is wanted.
    language_tags=True,
    metric="bleu",
    other_metrics=("chrf",),
    search=SearchDefaults(max_length_a=1.5, max_length_b=20),
)
