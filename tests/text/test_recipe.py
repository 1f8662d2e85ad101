"""Recipes: what they name, and what they refuse."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.preparing.run import prepare
from deltalm_ds.preparing.settings import PrepareSettings
from deltalm_ds.text.inputs import Input
from deltalm_ds.text.pieces import parts_of, read_pieces
from deltalm_ds.text.readers import parse
from deltalm_ds.text.recipe import Recipe, read_recipe

PAPER = Path(str(resources.files("deltalm_ds") / "recipes/paper.yaml"))

TMX = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4">
<header creationtool="made" segtype="sentence" adminlang="en" srclang="en-US" datatype="plaintext">
  <note>not a unit</note>
</header>
<body>
<tu tuid="1">
  <tuv xml:lang="fr"><seg>Le <hi type="b">chat</hi>   dort<ph x="1">{0}</ph> &amp; rêve.</seg></tuv>
  <tuv xml:lang="en-US"><prop type="score">1.2</prop><seg>The <hi>cat</hi>
    sleeps<bpt i="1">&lt;b&gt;</bpt> &amp; dreams.</seg></tuv>
</tu>
<tu><tuv xml:lang="en-US"><seg>No French.</seg></tuv></tu>
</body>
</tmx>
"""


def write(path: Path, text: str) -> Path:
    """A file of `text`, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compressors: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.compress, ".gz": gzip.compress}
    path.write_bytes(compressors.get(path.suffix, bytes)(text.encode()))
    return path


def write_zip(path: Path, members: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def write_corpus(folder: Path) -> None:
    """A tree of the files of the paper's corpus, in the layout of the shipped recipe."""
    write(folder / "cc100/fr.txt.xz", "Un.\nDeux.\n\nTrois.\n")
    write(folder / "cc100/no.txt.xz", "En.\n")
    write(folder / "cc100/zh-Hans.txt.xz", "一。\n\n二。\n")
    write(folder / "cc100/hi_rom.txt.xz", "Ek.\n")
    page = {"url": "http://a.example", "title": "T", "raw_content": "Quatre.\nCinq.", "language": "fr"}
    write(folder / "ccnet/2019-09/fr_head_0000.json.gz", json.dumps(page) + "\n")
    write(folder / "ccnet/2019-09/zh_head_0000.json.gz", json.dumps({"raw_content": "三。"}) + "\n")
    write(folder / "wikipedia/fr.jsonl", json.dumps({"id": 1, "text": "Six.\n\nSept."}) + "\n")
    row = ("b.example", "http://b.example/en", "A page", "http://b.example/fr", "Une page")
    write(folder / "ccaligned/en_XX-fr_XX.tsv.xz", "\t".join(row) + "\n")
    write(folder / "ccaligned/sentence-aligned/en_XX-fr_XX.tsv.xz", "A sentence\tUne phrase\t1.1\n")
    write(folder / "ccaligned/sentence-aligned/de_DE-en_XX.tsv.xz", "Ein Satz\tA sentence\t1.2\n")
    write(folder / "ccaligned/sentence-aligned/en_XX-zh_TW.tsv.xz", "A word\t一詞\t1.2\n")
    write(folder / "ccaligned/sentence-aligned/az_AZ-en_XX.tsv.xz", "Söz\tA word\t1.3\n")
    write(folder / "ccaligned/sentence-aligned/az_IR-en_XX.tsv.xz", "سؤز\tA word\t1.3\n")
    members = {"OpenSubtitles.en-fr.en": "Hello.\nBye.\n", "OpenSubtitles.en-fr.fr": "Bonjour.\nAdieu.\n"}
    others = {"README": "About.", "LICENSE.txt": "Free.", "OpenSubtitles.en-fr.xml": "<links/>"}
    write_zip(folder / "opus/OpenSubtitles/en-fr.txt.zip", members | others)
    write_zip(folder / "opus/Tatoeba/de-en.txt.zip", {"a.de-en.de": "Ja.\n", "a.de-en.en": "Yes.\n"})
    write(folder / "opus/Books/en-fr.tmx.gz", TMX)


CORPUS = {
    "az-en": [["Söz", "A word"]],
    "de-en": [["Ein Satz", "A sentence"], ["Ja.", "Yes."]],
    "en-fr": [
        ["A page", "Une page"],
        ["A sentence", "Une phrase"],
        ["The cat sleeps & dreams.", "Le chat dort & rêve."],
        ["Hello.", "Bonjour."],
        ["Bye.", "Adieu."],
    ],
    "en-zh": [["A word", "一詞"]],
    "fr": [["Un.", "Deux."], ["Trois."], ["Quatre.", "Cinq."], ["Six.", "Sept."]],
    "hi_rom": [["Ek."]],
    "no": [["En."]],
    "zh": [["三。"]],
    "zh-Hans": [["一。"], ["二。"]],
}
"""All documents of `write_corpus`, by source."""


def documents_of(inputs: list[Input]) -> dict[str, list[list[str]]]:
    """All documents, by source."""
    found: dict[str, list[list[str]]] = {}
    for entry in inputs:
        for part in parts_of(entry):
            for piece in read_pieces(part):
                for documents in parse(piece).documents:
                    found.setdefault(documents.source, []).extend(documents)
    return found


def recipe(folder: Path, text: str) -> Recipe:
    return read_recipe(write(folder / "recipe.yaml", text))


def refusal(folder: Path, text: str) -> str:
    """The message with which a recipe is refused, without the recipe's name."""
    with pytest.raises(UserError) as caught:
        recipe(folder, text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(str(folder / "recipe.yaml")).lstrip(": ")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with fr.txt, de.txt and en-fr.tsv."""
    write(tmp_path / "fr.txt", "Un.\n")
    write(tmp_path / "de.txt", "Eins.\n")
    write(tmp_path / "en-fr.tsv", "One.\tUn.\n")
    return tmp_path


def test_a_recipe_names_all_that_the_paper_has(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    write(tmp_path / "held/valid.txt", "Huit.\nNeuf.\n")
    found = recipe(
        tmp_path,
        """
        sources:
          fr:
            weight: 2
            files:
              - path: cc100/fr.txt.xz
              - path: ccnet/**/fr_*.json.gz
                text_field: raw_content
              - path: held/valid.txt
                documents: lines
                split: valid
          no:
            files: [{path: cc100/no.txt.xz}]
          fr-en:
            weight: 0.5
            files:
              - path: ccaligned/en_XX-fr_XX.tsv.xz
                columns: [5, 3]
              - path: opus/*/en-fr.*
        """,
    )
    assert documents_of(found.inputs) == {
        "en-fr": [document for document in CORPUS["en-fr"] if document[0] != "A sentence"],
        "fr": [*CORPUS["fr"][:3], ["Huit."], ["Neuf."]],
        "no": [["En."]],
    }
    assert found.weights == {"fr": 2.0, "no": 1.0, "en-fr": 0.5}
    assert [entry.files[0].path.name for entry in found.inputs if entry.held_out] == ["valid.txt"]
    assert [text.member for text in found.left_out] == ["LICENSE.txt", "OpenSubtitles.en-fr.xml", "README"]
    assert [entry.ordinal for entry in found.inputs] == [0, 1, 2, 0, 1, 2, 0]
    assert found.without_files == []


def test_the_shipped_recipe_reads_what_is_there_of_the_papers_corpus(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    found = read_recipe(PAPER, tmp_path)
    assert documents_of(found.inputs) == CORPUS
    assert found.weights == dict.fromkeys(CORPUS, 1.0)
    assert len(found.without_files) == 101 + 80 - len(CORPUS)  # XLM-R's languages and zh; pairs with English
    assert {"af", "am-en", "zh-Hant"} < set(found.without_files)


def test_the_shipped_recipe_needs_some_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its files is in .*--recipe-folder"):
        read_recipe(PAPER, tmp_path)


def test_the_documented_recipe_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    write_corpus(tmp_path)
    write_zip(
        tmp_path / "opus/Books/en-fr.txt.zip", {"Books.en-fr.en": "Hello.\n", "Books.en-fr.fr": "Salut.\n"}
    )
    for name in ("de_DE", "no_XX"):
        write(tmp_path / f"ccaligned/en_XX-{name}.tsv.xz", "domain\turl\there\turl\tthere\n")
    found = recipe(tmp_path, example)
    assert documents_of(found.inputs) == {
        "de-en": [["there", "here"]],
        "en-fr": [["Hello.", "Salut."]],
        "en-no": [["here", "there"]],
        "fr": CORPUS["fr"][:3],
        "no": [["En."]],
    }
    assert (found.weights["fr"], found.without_files) == (2.0, ["de"])


def test_prepare_says_which_sources_have_no_files(tmp_path: Path) -> None:
    write(tmp_path / "fr.txt", "".join(f"Le mot {i} et le mot {i * 7}.\n\n" for i in range(400)))
    path = write(
        tmp_path / "recipe.yaml",
        "templates: [{languages: [fr, de, no], optional: true, files: [{path: '{language}.txt'}]}]",
    )
    said: list[str] = []
    settings = PrepareSettings(
        inputs=(path,), output=tmp_path / "out", workers=1, vocabulary_size=60, num_sentinels=4
    )
    manifest = prepare(settings, said.append)
    assert "without files, and so left out, 2 of the recipe's sources: de, no" in said
    assert {source.name for source in manifest.sources} == {"fr"}


def test_templates_add_to_sources(text: Path) -> None:
    write(text / "more/fr.txt", "Deux.\n")
    found = recipe(
        text,
        """
        sources:
          fr: {weight: 3}
          de: {files: [{path: de.txt}]}
        templates:
          - languages: [fr]
            files: [{path: "{language}.txt"}, {path: "m*/{language}.txt"}]
          - pairs: [[fr, en]]
            files: [{path: "{second}-{first}.tsv", columns: [2, 1]}]
        """,
    )
    assert documents_of(found.inputs) == {
        "de": [["Eins."]],
        "en-fr": [["One.", "Un."]],
        "fr": [["Un."], ["Deux."]],
    }
    assert found.weights == {"fr": 3.0, "de": 1.0, "en-fr": 1.0}


def test_brackets_in_the_folders_name_are_no_pattern(tmp_path: Path) -> None:
    write(tmp_path / "[1]/fr.txt", "Un.\n")
    found = recipe(tmp_path / "[1]", "sources: {fr: {files: [{path: f*.txt}]}}")
    assert documents_of(found.inputs) == {"fr": [["Un."]]}


FILES = "sources: {fr: {files: [{path: fr.txt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file: Input should be a valid dictionary"),
        ("[fr.txt]", "the file: Input should be a valid dictionary"),
        ("fr.txt", "the file: Input should be a valid dictionary"),
        ("{}", "none of its files is in"),
        ("sources: []", "sources: Input should be a valid dictionary"),
        ("source: {}", "source: Extra inputs are not permitted"),
        ('"a\\nb\\e": {}', r"a\nb\x1b: Extra inputs"),
        ("1: {}", "1: Keys should be strings"),
        ("sources: {1: {}}", "sources.1.[key]: Input should be a valid string"),
        ("sources: {fr: }", "sources.fr: Input should be a valid dictionary"),
        ("sources: {fr: {}}", "the source fr names no files"),
        ("sources: {fr: {files: fr.txt}}", "sources.fr.files: Input should be a valid list"),
        ("sources: {fr: {files: [fr.txt]}}", "sources.fr.files.0: Input should be a valid dictionary"),
        ("sources: {fr: {files: [{paths: fr.txt}]}}", "sources.fr.files.0.path: Field required"),
        (FILES + ", colums: [1, 2]}]}}", "sources.fr.files.0.colums: Extra inputs are not permitted"),
        (FILES + ", columns: [1, '2']}]}}", "sources.fr.files.0.columns.1: Input should be a valid integer"),
        (FILES + ", columns: [0, 1]}]}}", "columns.0: Input should be greater than or equal to 1"),
        (FILES + ", columns: [1]}]}}", "columns: List should have at least 2 items"),
        (FILES + ", columns: [1, 2, 3]}]}}", "columns: List should have at most 2 items"),
        (FILES + ", documents: words}]}}", "documents: Input should be 'blocks' or 'lines'"),
        (FILES + ", split: test}]}}", "split: Input should be 'train' or 'valid'"),
        (FILES + ", text_field: 1}]}}", "text_field: Input should be a valid string"),
        (FILES + "}], weight: -1}}", "sources.fr.weight: Input should be greater than or equal to 0"),
        (FILES + "}], weight: 1e999}}", "sources.fr.weight: Input should be a finite number"),
        (FILES + "}], weight: .nan}}", "sources.fr.weight: Input should be a valid number"),
        (FILES + "}], weight: '2'}}", "sources.fr.weight: Input should be a valid number"),
        (FILES + "}], weight: true}}", "sources.fr.weight: Input should be a valid number"),
        (FILES + "}], weight: 2001-99-99}}", "sources.fr.weight: Input should be a valid number"),
        (FILES + "}]}, fr: {files: [{path: de.txt}]}}", "is not YAML (the key 'fr' is there twice"),
        (FILES + "}, {path: './fr.txt'}]}}", "fr: {folder}/fr.txt belongs to it twice"),
        (FILES + "}, {path: '*r.txt', split: valid}]}}", "fr: {folder}/fr.txt belongs to it twice"),
        ("sources: {french: {files: [{path: fr.txt}]}}", "the source 'french' is neither a language nor two"),
        ("sources: {fr: {files: [{path: it.txt}]}}", "fr: no file matches {folder}/it.txt"),
        ("sources: {fr: {files: [{path: en-fr.tsv}]}}", "none of the endings .txt, .jsonl, .json: rename it"),
        ("sources: {en-fr: {files: [{path: fr.txt}]}}", "and those of its languages: rename it"),
        ('sources: {fr: {files: [{path: "a\\0"}]}}', "a path has no control characters"),
        ('sources: {fr: {files: [{path: "a\\n"}]}}', "a path has no control characters"),
        (
            "sources: {en-fr: {files: [{path: en-fr.tsv}]}, fr-en: {files: [{path: en-fr.tsv}]}}",
            "has the source en-fr twice: join the two",
        ),
        ("templates: [{files: [{path: fr.txt}]}]", "a template has either languages or pairs"),
        (
            "templates: [{languages: [fr], pairs: [[en, fr]], files: [{path: fr.txt}]}]",
            "a template has either languages or pairs",
        ),
        ("templates: [{languages: [fr], files: []}]", "templates.0.files: List should have at least 1 item"),
        ("templates: [{languages: [fr], files: [{path: fr.txt}]}]", "fr.txt needs {language}, and no other"),
        ("templates: [{languages: [fr], files: [{path: '{first}'}]}]", "needs {language}, and no other"),
        ("templates: [{pairs: [[en, fr]], files: [{path: '{language}'}]}]", "needs {first} or {second}"),
        ("templates: [{languages: [fr], files: [{path: '{language}.{x'}]}]", "and no other braces"),
        ("templates: [{pairs: [[en]], files: [{path: '{first}'}]}]", "pairs.0: List should have at least 2"),
        (
            "templates: [{languages: ['../*'], files: [{path: '{language}'}]}]",
            "a template names '../*', no language",
        ),
        ("templates: [{languages: [it], files: [{path: '{language}.txt'}]}]", "it: no file matches"),
        (
            "templates: [{languages: [fr], optional: 1, files: [{path: '{language}.txt'}]}]",
            "templates.0.optional: Input should be a valid boolean",
        ),
        (
            "templates: [{languages: [fr, fr], files: [{path: '{language}.txt'}]}]",
            "fr: {folder}/fr.txt belongs to it twice",
        ),
        (
            "templates: [{languages: [fr], weight: 2, files: [{path: '{language}.txt'}]}]",
            "templates.0.weight: Extra inputs are not permitted",
        ),
        ("sources: {fr: &a {files: *a}}", "is not YAML (aliases are not allowed"),
        ("sources: {fr: {<<: {weight: 2}}}", "sources.fr.<<: Extra inputs are not permitted"),
        ("sources: {fr: {files: [{path: fr.txt}", "is not YAML (while parsing"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(text: Path, content: str, message: str) -> None:
    assert message.replace("{folder}", str(text)) in refusal(text, content)


def test_norwegian_is_no_boolean(text: Path) -> None:
    write(text / "no.txt", "En.\n")
    found = recipe(
        text, "templates: [{languages: [no, fr], optional: false, files: [{path: '{language}.txt'}]}]"
    )
    assert documents_of(found.inputs) == {"fr": [["Un."]], "no": [["En."]]}


@pytest.mark.parametrize(
    "path",
    [
        *("../out.txt", "../none.txt", "a/../../out.txt", "a/../a/fr.txt"),
        *("{folder}/out.txt", "{folder}/none.txt", "link.txt", "to/*.txt"),
    ],
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, path: str) -> None:
    inside = tmp_path / "inside"
    write(inside / "a/fr.txt", "Un.\n")
    outside = write(tmp_path / "out.txt", "secret\n")
    (inside / "link.txt").symlink_to(outside)
    (inside / "to").symlink_to(tmp_path, target_is_directory=True)
    path = path.replace("{folder}", str(tmp_path))
    assert f"leads out of {inside}" in refusal(inside, f"sources: {{fr: {{files: [{{path: '{path}'}}]}}}}")


def test_links_within_the_folder_are_followed(text: Path) -> None:
    (text / "sub").mkdir()
    (text / "sub/link.txt").symlink_to("../fr.txt")
    found = recipe(text, "sources: {fr: {files: [{path: sub/link.txt}]}}")
    assert documents_of(found.inputs) == {"fr": [["Un."]]}


def test_files_are_looked_for_in_the_given_folder(
    text: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere / "recipe.yaml", FILES + "}]}}")
    assert documents_of(read_recipe(path, text).inputs) == {"fr": [["Un."]]}
    with pytest.raises(UserError, match="no file matches"):
        read_recipe(path)


def test_archives_without_text_are_refused(text: Path) -> None:
    write_zip(text / "fr.zip", {"README.txt": "About.", "a.xml": "<a/>"})
    write_zip(text / "one.zip", {"a.en": "One.\n"})
    assert "fr.zip holds no text of this source" in refusal(text, "sources: {fr: {files: [{path: fr.zip}]}}")
    assert "a.en has no partner" in refusal(text, "sources: {en-fr: {files: [{path: one.zip}]}}")
