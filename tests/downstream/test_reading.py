"""Rows of every kind become the examples that are meant, or one clear line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from downstream_examples import examples_of
from hypothesis import given
from hypothesis import strategies as st
from made_tasks import NUM_HELD_OUT, NUM_TRAINING, SPLITS, WRITERS, write_task
from text_files import COMPRESS, write, write_zip

from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.reading import read_examples
from deltalm_ds.downstream.registry import TASKS, find_task
from deltalm_ds.downstream.templates import one_line
from deltalm_ds.errors import UserError

# A byte order mark is no text where a file begins.
TEXT = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff")).map(one_line).filter(bool)
)
ROW = {"source": "s", "target": "t", "lang": "fr"}


def write_rows(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def complaint(*paths: Path, **options: object) -> str:
    """What is said of data that cannot be read: one line."""
    with pytest.raises(UserError) as caught:
        examples_of(*paths, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("task", TASKS)
def test_made_data_of_every_task_are_read(tmp_path: Path, task: str) -> None:
    folder = write_task(task, tmp_path / "data")
    options = {"source_language": "en"} if task == "translation" else {}
    read = {split: examples_of(folder, task=task, split=split, **options) for split in SPLITS}
    assert [len(read[split]) for split in SPLITS] == [NUM_TRAINING, NUM_HELD_OUT, NUM_HELD_OUT]
    assert [example.source for example in read["valid"]] == [
        example.source for example in read["train"][:NUM_HELD_OUT]
    ]
    directions = {split: {example.direction for example in examples} for split, examples in read.items()}
    expected = {"translation": "en-fr", "question-generation": "zh-zh", "summarization": "fr-fr"}
    expected |= {"cross-lingual-summarization": "es-en", "data-to-text": "en-en"}
    if task == "zero-shot-summarization":
        assert directions == {"train": {"en-en"}, "valid": {"en-en"}, "test": {"fr-fr"}}
    else:
        assert directions == {split: {expected[task]} for split in SPLITS}
    num_targets = 2 if task == "data-to-text" else 1
    assert all(len(example.targets) == num_targets and example.source for example in read["train"])


def test_made_data_are_a_function_of_the_seed(tmp_path: Path) -> None:
    def content(folder: Path) -> list[bytes]:
        return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]

    for task in WRITERS:
        folders = [write_task(task, tmp_path / f"{task}{n}", seed) for n, seed in enumerate((0, 0, 1))]
        first, again, other = map(content, folders)
        assert first == again != other


def test_line_aligned_files_are_read_in_the_direction_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "train.en", "one\ntwo\n")
    write(tmp_path / "train.fr.gz", "un\r\ndeux\r\n")
    forth = [DownstreamExample("one", ("un",), "en", "fr"), DownstreamExample("two", ("deux",), "en", "fr")]
    back = [DownstreamExample("un", ("one",), "fr", "en"), DownstreamExample("deux", ("two",), "fr", "en")]
    named = [tmp_path / "train.fr.gz", tmp_path / "train.en"]
    for paths in ([tmp_path], named):
        assert examples_of(*paths, source_language="en") == forth
        assert examples_of(*paths, target_language="en") == back
        both = examples_of(*paths, both_directions=True)
        assert both == [forth[0], back[0], forth[1], back[1]]
        assert examples_of(*paths, both_directions=True, source_language="en", target_language="fr") == both
        assert "from en to fr, or back? give --source-language" in complaint(*paths)
        assert "2 are not de-any" in complaint(*paths, source_language="de")


def test_texts_in_many_languages_are_read_from_one_into_all(tmp_path: Path) -> None:
    for language in ("en", "de", "zh-Hant"):
        write(tmp_path / f"train.{language}", f"in {language}\n")
    targets = [example.direction for example in examples_of(tmp_path, source_language="en")]
    assert targets == ["en-de", "en-zh-Hant"]
    assert len(examples_of(tmp_path, both_directions=True)) == 6
    assert len(examples_of(tmp_path, both_directions=True, target_language="en")) == 4


def test_pairs_in_folders_of_their_own_are_read_together(tmp_path: Path) -> None:
    for pair in ("en-de", "en-fr"):
        write(tmp_path / pair / "train.en", "a\n")
        write(tmp_path / pair / f"train.{pair[3:]}", "b\n")
    read = examples_of(tmp_path, target_language="en")
    assert [example.direction for example in read] == ["de-en", "fr-en"]
    left_out: Counter[str] = Counter()
    examples_of(tmp_path, source_language="de", left_out=left_out)
    assert left_out == {"other language": 1}


@pytest.mark.parametrize("lines", ["a\n", "a\nb\nc\n", ""])
def test_unequal_lengths_are_told(tmp_path: Path, lines: str) -> None:
    write(tmp_path / "train.en", lines)
    write(tmp_path / "train.fr", "x\ny\n")
    shorter, longer = ("en", "fr") if lines != "a\nb\nc\n" else ("fr", "en")
    message = complaint(tmp_path, source_language="en")
    ends = min(lines.count("\n"), 2)
    assert f"train.{shorter} ends after line {ends} and" in message
    assert f"train.{longer} goes on" in message


@pytest.mark.parametrize(
    "templates", [{}, {"source_template": "{a} </s> {e}", "target_template": "{q}"}], ids=["task's", "own"]
)
def test_files_of_fields_fill_templates(tmp_path: Path, templates: dict[str, str]) -> None:
    for ending, text in {"q": "谁？", "a": "我", "e": "是 我 。"}.items():
        write(tmp_path / f"zh.train.{ending}", f"{text}\n")
    expected = [DownstreamExample("我 </s> 是 我 。", ("谁？",), "zh", "zh")]
    assert examples_of(tmp_path, task="question-generation", **templates) == expected


def test_x_and_y_are_source_and_target(tmp_path: Path) -> None:
    write(tmp_path / "test.x", "long\n\n")
    write(tmp_path / "test.y", "short\n\n")
    read = examples_of(tmp_path, task="summarization", split="test", target_language="fr")
    assert read == [
        DownstreamExample("long", ("short",), "fr", "fr"),
        DownstreamExample("", ("",), "fr", "fr"),
    ]


def test_blank_sides_are_left_out_of_training_alone(tmp_path: Path) -> None:
    rows = [("", "t"), ("s", ""), (" \t", ""), ("s", "t")]
    path = write_rows(tmp_path / "a.jsonl", *({"source": s, "target": t, "lang": "fr"} for s, t in rows))
    left_out: Counter[str] = Counter()
    (example,) = examples_of(path, task="summarization", left_out=left_out)
    assert (example.source, example.targets) == ("s", ("t",))
    assert left_out == {"blank": 3}
    assert len(examples_of(path, task="summarization", split="test")) == 4


def test_rows_of_gem_are_read_as_they_are_published(tmp_path: Path) -> None:
    row = {"gem_id": "wikilingua-7", "gem_parent_id": "x", "source_language": "tr", "target_language": "en"}
    row |= {"source": "uzun\nmetin", "target": "short", "references": ["short", "brief"]}
    path = write_rows(tmp_path / "wiki.tr.train.jsonl", row, {**row, "references": []})
    first, second = examples_of(path, task="cross-lingual-summarization")
    assert first == DownstreamExample("uzun metin", ("short", "brief"), "tr", "en", "wikilingua-7")
    assert second.targets == ("short",)
    message = complaint(
        path, task="cross-lingual-summarization", target_template="{references}", split="test"
    )
    assert "line 2, has no target" in message


def test_translations_in_one_object_are_sides(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", {"id": 3, "translation": {"en": "one", "fr": "un"}})
    assert examples_of(path, source_language="fr") == [DownstreamExample("un", ("one",), "fr", "en", "3")]


def test_languages_are_the_rows_then_the_users_then_the_names(tmp_path: Path) -> None:
    def direction(name: str, task: str, row: dict[str, str], **options: str) -> str:
        (example,) = examples_of(write_rows(tmp_path / name, row), task=task, **options)
        return example.direction

    bare = {"source": "s", "target": "t"}
    assert direction("a.fr.jsonl", "summarization", bare) == "fr-fr"
    assert direction("a.fr.jsonl", "summarization", bare, source_language="de") == "de-de"
    assert direction("a.fr.jsonl", "summarization", {**bare, "lang": "hi"}) == "hi-hi"
    assert direction("a.es-en.jsonl", "cross-lingual-summarization", bare) == "es-en"
    assert direction("a.es-en.jsonl", "translation", bare, target_language="fr") == "es-fr"
    assert (
        direction("a.jsonl", "translation", {**bare, "source_language": "ru"}, target_language="vi")
        == "ru-vi"
    )
    triples = {"triples": "a | b | c", "text": "t"}
    assert direction("a.jsonl", "data-to-text", triples, target_language="ru") == "en-ru"
    assert direction("a.jsonl", "data-to-text", {**triples, "lang": "br"}) == "en-br"


def test_rows_in_other_languages_are_left_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", *({**ROW, "lang": language} for language in ("fr", "hi", "fr")))
    left_out: Counter[str] = Counter()
    assert len(examples_of(path, task="summarization", target_language="fr", left_out=left_out)) == 2
    assert left_out == {"other language": 1}
    message = complaint(path, task="summarization", source_language="de")
    assert "no example for train" in message
    assert "3 are not de-any" in message


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ('{"source": "s", "lang": "fr"}', {}, "line 2, has no field 'target', only 'source', 'lang'"),
        ('{"source": 3, "target": "t", "lang": "fr"}', {}, "line 2, has no field 'source', only"),
        ("{}", {}, "line 2, has no field 'source', only none"),
        ("[1]", {}, "line 2, is not a JSON object"),
        ('{"source": "s"', {}, "line 2, is not a JSON object"),
        ("[" * 100_000, {}, "line 2, is not a JSON object"),
        (
            '{"source": "\\ud800", "target": "t"}',
            {},
            "line 2, has half a surrogate pair in the field 'source'",
        ),
        ('{"source": "s", "target": "t"}', {}, "line 2, does not tell its source's language"),
        ('{"source": "s", "target": "t", "lang": "french"}', {}, "line 2, names the language 'french'"),
        (
            json.dumps(ROW),
            {"source_language": "fr", "target_language": "de"},
            "reads and writes one language",
        ),
        ('{"source": ["s", "t"], "target": "t", "lang": "fr"}', {}, "line 2, has 2 sources"),
        (json.dumps(ROW), {"source_template": "{context}"}, "a.jsonl, line 1, has no field 'context'"),
    ],
)
def test_what_is_wrong_with_a_row_is_told(
    tmp_path: Path, rows: str, options: dict[str, str], expected: str
) -> None:
    path = write(tmp_path / "a.jsonl", f"{json.dumps(ROW)}\n{rows}\n")
    assert expected in complaint(path, task="summarization", **options)


def test_examples_before_what_is_wrong_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f"{json.dumps(ROW)}\nnonsense\n")
    examples = read_examples([path], find_task("summarization"), "train")
    assert next(examples).source == "s"
    with pytest.raises(UserError, match="line 2"):
        next(examples)


def test_columns_are_named_by_the_first_line_or_the_user(tmp_path: Path) -> None:
    content = 'source\ttarget\tid\na "b\tc\t1\n\nd\te\t2\r\n'
    read = examples_of(write(tmp_path / "en-fr.tsv.xz", content))
    assert read == [
        DownstreamExample('a "b', ("c",), "en", "fr", "1"),
        DownstreamExample("d", ("e",), "en", "fr", "2"),
    ]
    bare = write(tmp_path / "a.tsv", "one\tun\n")
    (example,) = examples_of(bare, columns=("en", "fr"), source_language="en")
    assert example == DownstreamExample("one", ("un",), "en", "fr")
    assert "no field 'source'" in complaint(write(bare, "one\tun\na\tb\n"), source_language="en")


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("source\ttarget\na\n", None, "line 2, has 1 columns where there are 2 names (source, target)"),
        ("a\tb\tc\n", ("source", "target"), "line 1, has 3 columns where there are 2"),
        ("same\tsame\n", None, "first line 'same\\tsame' does not name columns"),
        ("source\t\n", None, "does not name columns"),
    ],
)
def test_what_is_wrong_with_columns_is_told(
    tmp_path: Path, content: str, columns: tuple[str, ...] | None, expected: str
) -> None:
    path = write(tmp_path / "en-fr.tsv", content)
    assert expected in complaint(path, columns=columns)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_every_format_gives_the_same_examples(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    write(folder / "a.en", "".join(f"{source}\n" for source, _ in pairs))
    write(folder / "a.fr", "".join(f"{target}\n" for _, target in pairs))
    tsv = write(folder / "a.tsv", "en\tfr\n" + "".join(f"{s}\t{t}\n" for s, t in pairs))
    jsonl = write_rows(folder / "a.en-fr.jsonl", *({"source": s, "target": t} for s, t in pairs))
    expected = [DownstreamExample(source, (target,), "en", "fr") for source, target in pairs]
    assert examples_of(folder / "a.en", folder / "a.fr", source_language="en") == expected
    assert examples_of(tsv, source_language="en") == expected
    assert examples_of(jsonl) == expected


@pytest.mark.parametrize("suffix", COMPRESS)
def test_files_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", json.dumps(ROW))
    assert examples_of(path, task="summarization") == [DownstreamExample("s", ("t",), "fr", "fr")]


def test_members_of_a_zip_are_read_as_in_a_folder(tmp_path: Path) -> None:
    rows = {split: json.dumps({**ROW, "source": split}) for split in SPLITS}
    path = write_zip(tmp_path / "a.zip", {f"data/{split}.jsonl": row for split, row in rows.items()})
    for split in SPLITS:
        (example,) = examples_of(path, task="summarization", split=split)
        assert example.source == split


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"source_language": "french"}, "'french' is no language"),
        ({"target_language": ""}, "'' is no language"),
        ({"source_template": "{a"}, "the template '{a'"),
        ({"target_template": "a"}, "names no field"),
        ({"columns": ("a", "a")}, "--columns a a must be different"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, str], expected: str) -> None:
    with pytest.raises(UserError, match=expected.replace("{", "\\{")):
        ReadingOptions(**options)  # type: ignore[arg-type]
