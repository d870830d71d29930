"""Reads a YAML file as a person meant it: what YAML would take silently in another sense is refused, with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself lets the last of two equal keys win without a word.

    What is constructed in depth cannot contain itself, as an alias inside its own anchor would.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == MERGE:
                raise ValueError(f"line {line}: '<<' is not followed here; write its keys out")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(f"line {line}: the key {key!r} must be text; put it in quotes")
            if key in seen:
                raise ValueError(f"line {line}: the key '{key}' stands here and in line {seen[key]}; leave one out")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)

    def construct_in_tens(self, node: yaml.ScalarNode) -> Any:
        """A number; YAML 1.1 reads 1:30:00 as one of base 60, without a word."""
        if ":" in str(node.value):
            line = node.start_mark.line + 1
            raise ValueError(f"line {line}: to YAML, {node.value} is a number of base 60; put it in quotes")
        whole = node.tag.endswith("int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{kind}", _Loader.construct_in_tens)


def load(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ValueError: one sentence: the file is missing, empty, no mapping, has a tab, a key twice, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: this is no text file in UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise ValueError(f"{path}: line {number} is indented with a tab; YAML allows only spaces there")
    try:
        content = yaml.load(text, _Loader)  # noqa: S506  (a subclass of the safe one)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}" if mark else "somewhere"
        raise ValueError(f"{path}: {where} is no valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"{path}: there is an unprintable character, {error.character:#x}; take it out") from None
    except RecursionError:
        raise ValueError(f"{path}: it is nested too deeply; a sweep needs five levels at most") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: the file {'is empty' if content is None else 'holds no keys'}; it must be a mapping")
    return content
