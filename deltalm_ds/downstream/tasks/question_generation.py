"""Question generation, as on XQG."""

from deltalm_ds.downstream.task import ENDINGS, SearchDefaults, Task

TASK = Task(
    name="question-generation",
    summary="answer and passage -> a question with that answer, in their language",
    source_template="{answer} </s> {context}",
    target_template="{question}",
    endings={**ENDINGS, "q": "question", "a": "answer", "e": "context"},
    same_language=True,
    # The question is in the language of the passage, which the model sees.
    language_tags=False,
    metric="bleu4-characters",
    other_metrics=("rouge-characters",),
    search=SearchDefaults(max_length_b=64),
)
