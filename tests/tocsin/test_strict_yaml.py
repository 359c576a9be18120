"""What YAML 1.1 would let pass without a word is refused here, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin import strict_yaml
from tocsin.errors import ConfigError


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        strict_yaml.loads(text.encode(), "f.yml")
    return [str(p) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yml:3: the key 'a' stands here twice (first on line 1)"),
        ("a: 1\non: push\n", "f.yml:2: a bare on means true or false"),
        ("mode: off\n", "f.yml:1: a bare off means true or false"),
        ("x:\n  - yes\n", "f.yml:2: a bare yes means true or false"),
        ("1: a\n", "f.yml:1: the key '1' reads as int; put it in quotes"),
        ("true: a\n", "f.yml:1: the key 'true' reads as bool"),
        ("a: !!python/object:os.system x\n", "f.yml:1: the tag"),
        ("a: !!binary aGk=\n", "f.yml:1: the tag"),
        ("a: [1\nb: 2\n", "f.yml:2: is not YAML"),
        ("a:\n\t- 1\n", "f.yml:2: is not YAML"),
        ("a: *nowhere\n", "f.yml:1: is not YAML"),
        ("? [a, b]\n: 1\n", "f.yml:1: the key"),
    ],
)
def test_refused_with_its_line(text: str, expected: str) -> None:
    assert any(p.startswith(expected) for p in problems(text)), problems(text)


def test_all_problems_at_once() -> None:
    found = problems("a: 1\na: 2\nb: off\nc: {d: 1, d: 2}\n")
    assert [p.split(":")[1] for p in found] == ["2", "3", "4"]


def test_values_keep_the_meaning_people_give_them() -> None:
    (document,) = strict_yaml.loads(b"version: 1.10\nday: 2024-01-01\ntime: 12:30\nflag: true\nquoted: 'off'\n", "f")
    assert document == {"version": 1.1, "day": "2024-01-01", "time": "12:30", "flag": True, "quoted": "off"}


def test_lines_of_keys_and_items() -> None:
    (document,) = strict_yaml.loads(b"a: 1\n\nb:\n  - p\n  - q\n", "f")
    assert (document.lines, document["b"].lines) == ({"a": 1, "b": 3}, [4, 5])


def test_an_alias_bomb_is_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than" in problems("\n".join(lines))[0]


def test_depth_is_bounded() -> None:
    assert "deep" in problems("[" * 20_000 + "]" * 20_000)[0]


def test_size_and_missing_files(tmp_path: Path) -> None:
    big = tmp_path / "big.yml"
    big.write_bytes(b"#" * (strict_yaml.MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match=r"big\.yml: is 1048577 bytes long"):
        strict_yaml.load(big)
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read: No such file"):
        strict_yaml.load(tmp_path / "none.yml")


def test_one_wants_one_mapping(tmp_path: Path) -> None:
    file = tmp_path / "two.yml"
    file.write_text("a: 1\n---\nb: 2\n")
    assert len(strict_yaml.load(file)) == 2
    with pytest.raises(ConfigError, match="exactly one"):
        strict_yaml.one(file, name="two")


@given(st.binary(max_size=300))
def test_any_bytes_give_documents_or_problems(data: bytes) -> None:
    try:
        strict_yaml.loads(data, "f.yml")
    except ConfigError as e:
        assert e.problems
