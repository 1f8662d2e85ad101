"""Summarization in languages without training data, as on XGiga: trained in one, used in others."""

from deltalm_ds.downstream.task import SearchDefaults, Task

TASK = Task(
    name="zero-shot-summarization",
    summary="text -> its summary, in languages that training has not seen",
    same_language=True,
    # Trained on English alone a model answers in English: a tag, the embeddings and the decoder as they were
    # pre-trained, and a choice of pieces keep it to the language that is asked for.
    language_tags=True,
    freeze=("embedding.*", "decoder.*"),
    restrict_output_to_language=True,
    metric="rouge",
    other_metrics=("rouge1", "rouge2", "rouge-characters"),
    search=SearchDefaults(max_length_b=128),
)
