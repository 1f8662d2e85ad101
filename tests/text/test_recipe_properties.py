"""Whatever is given for a recipe, it is read or refused in one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from deltalm_ds.errors import UserError
from deltalm_ds.text.recipe import read_recipe

SCALARS = st.one_of(
    st.sampled_from(["fr", "en-fr", "no", "fr.txt", "*", "**", "..", "/", "{language}", "{first}", ".", "~"]),
    st.sampled_from(["true", "1", "-1", "1.5", "0x_", "089", "1:2:3", "=", "<<", "2001-99-99", ".inf", "''"]),
    st.text(max_size=6).map(lambda text: json.dumps(text)),
)
KEYS = st.one_of(
    st.sampled_from(["sources", "templates", "languages", "pairs", "files", "path", "weight", "columns"]),
    st.sampled_from(["fr", "en-fr", "optional", "split", "documents", "text_field", "pair_fields"]),
    SCALARS,
)
STRUCTURES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.lists(st.tuples(KEYS, inner), max_size=3).map(
            lambda items: "{" + ", ".join(f"? {key} : {value}" for key, value in items) + "}"
        ),
        st.tuples(
            st.sampled_from(["!!python/name:os.system", "!!int", "!!set", "!x", "&a", "*a"]), inner
        ).map(" ".join),
    ),
    max_leaves=12,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.sampled_from([[1, 2], [2, 1], [1], [0, 1], "12"]),
        "documents": st.sampled_from(["blocks", "lines", "words"]),
        "split": st.sampled_from(["train", "valid", "test"]),
    },
)


def files(*paths: str) -> st.SearchStrategy[list[dict[str, object]]]:
    """A file or two, mostly the first of the paths."""
    path = st.sampled_from([*[paths[0]] * 4, *paths])
    return st.lists(st.builds(lambda path, options: {"path": path, **options}, path, OPTIONS), max_size=2)


def source(*paths: str) -> st.SearchStrategy[dict[str, object]]:
    weights = st.sampled_from([0, 1, 2.5, -1, "2"])
    return st.fixed_dictionaries({"files": files(*paths)}, optional={"weight": weights})


ALMOST_RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "sources": st.fixed_dictionaries(
            {},
            optional={
                "fr": source("fr.txt", "*.txt", "en-fr.tsv"),
                "en-fr": source("en-fr.tsv", "fr.txt"),
                "fr-en": source("*.tsv", "../en-fr.tsv"),
            },
        ),
        "templates": st.lists(
            st.one_of(
                st.fixed_dictionaries(
                    {
                        "languages": st.lists(st.sampled_from(["fr", "no", "x"]), max_size=2),
                        "files": files("{language}.txt", "{language}*", "fr.txt"),
                        "optional": st.booleans(),
                    }
                ),
                st.fixed_dictionaries(
                    {
                        "pairs": st.lists(st.sampled_from([["en", "fr"], ["en", "no"], ["en"]]), max_size=2),
                        "files": files("{first}-{second}.tsv", "{second}", "{language}.tsv"),
                        "optional": st.booleans(),
                    }
                ),
            ),
            max_size=2,
        ),
    },
).map(json.dumps)


@settings(max_examples=200, deadline=None)
@given(content=st.one_of(st.text(max_size=60), STRUCTURES, ALMOST_RECIPES))
def test_anything_is_a_recipe_or_refused_in_one_line(content: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fr.txt").write_text("Un.\n")
        (folder / "en-fr.tsv").write_text("One.\tUn.\n")
        path = folder / "recipe.yaml"
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        found, refused = None, "-"
        try:
            found = read_recipe(path)
        except UserError as error:
            refused = str(error)
        assert len(refused.splitlines()) == 1
        assert refused.encode()
        if found is not None:
            assert set(found.weights) == {entry.name for entry in found.inputs} != set()
            assert {text.path.parent for entry in found.inputs for text in entry.files} == {folder}
