"""YAML that remembers on which line each field stands.

Library files are edited by people and carry clinical numbers, so this reader is stricter than YAML: a key given twice is an
error; anchors, aliases, tags and several documents are refused; only null, true, false, integers and decimal numbers are
recognised, so that `yes`, `1:30`, `010`, `1_000` and a date stay the text they are written as (and then fail as a number).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtplan.errors import LibraryInvalid

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
FieldPath = tuple[str | int, ...]
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


@dataclass(frozen=True, slots=True, eq=False)
class YamlDocument:
    """A parsed file: plain `data` (a mapping), the 1-based line of every field, and the SHA-256 of the bytes."""

    path: Path
    data: dict[str, Any]
    lines: dict[FieldPath, int]
    sha256: str

    def line_of(self, field: FieldPath) -> int:
        """Line of a field, or of the nearest field around it that the file has."""
        for length in range(len(field), -1, -1):
            if field[:length] in self.lines:
                return self.lines[field[:length]]
        return 1

    def where(self, field: FieldPath) -> str:
        """`file.yaml line 12, goals[3].limit`, for messages."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in field).lstrip(".")
        return f"{self.path.name} line {self.line_of(field)}" + (f", {text}" if text else "")


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that knows only the scalars of JSON."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_NUMBER_STARTS = list("-+0123456789")
_INTEGER = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_DECIMAL = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$")
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, _NUMBER_STARTS)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _DECIMAL, _NUMBER_STARTS)


def read_yaml(path: Path) -> YamlDocument:
    """Parse one library file. Raises LibraryInvalid naming file, line and field when it cannot be read or is ambiguous."""
    raw = _bytes_of(path)
    try:
        text = raw.decode("utf-8")
        _refuse_references(text, path)
        loader = _StrictLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise _broken(path, 1, f"byte {error.start} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _broken(path, mark.line + 1 if mark else 1, error.problem or "cannot be parsed") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _broken(path, 1, " ".join(str(error).split()) or "nested too deeply") from error
    if not isinstance(root, yaml.MappingNode):
        raise _broken(path, 1, "the file is not a mapping of keys to values")
    lines: dict[FieldPath, int] = {(): root.start_mark.line + 1}
    data = _mapping(root, (), lines, path)
    return YamlDocument(path, data, lines, hashlib.sha256(raw).hexdigest())


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _broken(path, 1, f"{size} bytes, a library file has at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise LibraryInvalid(
            "LIBRARY_UNREADABLE", f"{path}: {error.strerror or error}", "a readable YAML file", "check the path"
        ) from error


def _refuse_references(text: str, path: Path) -> None:
    """Anchors would let one line stand for many fields (and a small file for gigabytes); depth costs time squared."""
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        line = token.start_mark.line + 1
        if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
            kind = type(token).__name__.removesuffix("Token").lower()
            raise _broken(path, line, f"an {kind} is used; write the value out")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            raise _broken(path, line, f"nested more than {MAX_DEPTH} deep")


def _value(node: yaml.Node, field: FieldPath, lines: dict[FieldPath, int], path: Path) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, field, lines, path)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*field, index)] = item.start_mark.line + 1
        return [_value(item, (*field, index), lines, path) for index, item in enumerate(node.value)]
    return _scalar(node)


def _mapping(node: yaml.MappingNode, field: FieldPath, lines: dict[FieldPath, int], path: Path) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _broken(path, line, "a key is not plain text")
        key = str(key_node.value)
        if key in data:
            raise LibraryInvalid(
                "YAML_DUPLICATE_KEY",
                f"{path.name} line {line}: key {key!r} is given twice (first on line {lines[(*field, key)]})",
                "each key once",
                "remove one of them",
            )
        lines[(*field, key)] = line
        data[key] = _value(value_node, (*field, key), lines, path)
    return data


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    text = str(node.value)
    match node.tag.rsplit(":", 1)[-1]:
        case "null":
            return None
        case "bool":
            return text == "true"
        case "int":
            return int(text)
        case "float":
            return float(text)
    return text


def _broken(path: Path, line: int, problem: str) -> LibraryInvalid:
    return LibraryInvalid("YAML_INVALID", f"{path.name} line {line}: {problem}", "plain YAML", "correct the file")
