"""Texts that tell facts, as on WebNLG."""

from deltalm_ds.downstream.task import Task

TASK = Task(
    name="data-to-text",
    summary="subject | predicate | object triples -> a text that tells them; WebNLG XML",
    source_template="{triples}",
    target_template="{text}",
    # WebNLG's triples are English whatever the language of the texts: only a tag says which is wanted.
    default_source_language="en",
    language_tags=True,
    metric="bleu",
    other_metrics=("chrf", "ter"),
)
