"""YAML reduced to what a recipe needs: text, numbers, true and false, lists, and mappings of unique keys.

Aliases, by which a short file can stand for a huge one, and tags, by which YAML makes objects, are refused.
What YAML 1.1 takes for more than text, such as `no`, the code of Norwegian, dates or the merge key, is text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from deltalm_ds.errors import UserError

_MAX_BYTES = 1 << 20
# Lengths are bounded: Python refuses to read integers of thousands of digits.
_INTEGER, _FIRST_OF_A_NUMBER = "-?(?:0|[1-9][0-9]{0,17})", "-0123456789"
_FRACTION = r"(?:\.[0-9]{1,18})?(?:e[+-]?[0-9]{1,3})?"
_SCALARS = (
    ("tag:yaml.org,2002:bool", "true|false", "tf"),
    ("tag:yaml.org,2002:int", _INTEGER, _FIRST_OF_A_NUMBER),
    ("tag:yaml.org,2002:float", _INTEGER + _FRACTION, _FIRST_OF_A_NUMBER),
)


def read_yaml(path: Path) -> Any:
    """The content of a file; UserError for what cannot be read, is too large, or is no such YAML."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes: is it a recipe?")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a file that can be read") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply: correct it") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}): correct it") from None


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases are not allowed{event.start_mark}")
        if event.tag is not None:
            raise yaml.YAMLError(f"tags are not allowed{event.start_mark}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key is no text{key.start_mark}")
            if key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} is there twice{key.start_mark}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
