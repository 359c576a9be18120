"""Offsets from this kernel's BTF, and what is said when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensor import record
from sensor.btf import Btf
from tocsin.errors import TocsinError


def test_everything_the_header_needs_is_there() -> None:
    btf = Btf()
    offsets = {pair[:2]: btf.offset(*pair) for pair in record.OFFSETS}
    assert offsets["task_struct", "comm"] > 0 and offsets["tty_struct", "name"] > 0


def test_a_field_inside_unnamed_unions_is_found() -> None:
    btf = Btf()
    assert btf.offset("sock_common", "skc_rcv_saddr") == btf.offset("sock_common", "skc_daddr") + 4


def test_a_field_is_found_by_an_older_name() -> None:
    btf = Btf()
    assert btf.offset("task_struct", "name_of_tomorrow", "comm") == btf.offset("task_struct", "comm")


def test_what_is_missing_is_named() -> None:
    btf = Btf()
    with pytest.raises(TocsinError, match=r"^this kernel's BTF has no task_struct\.foo$"):
        btf.offset("task_struct", "foo", "bar")
    with pytest.raises(TocsinError, match=r"^this kernel's BTF has no struct nothing$"):
        btf.offset("nothing", "foo")


def test_no_btf_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match=r"has no BTF .* run a kernel built with CONFIG_DEBUG_INFO_BTF=y"):
        Btf(tmp_path / "vmlinux")


@pytest.mark.parametrize("content", [b"", b"\x9f\xeb\x01\x00", b"hello" * 100])
def test_a_file_that_is_no_btf_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vmlinux").write_bytes(content)
    with pytest.raises(TocsinError, match="cannot be read as BTF"):
        Btf(tmp_path / "vmlinux")


def test_no_libbpf_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensor.btf._LIBRARY", "libbpf.so.none")
    with pytest.raises(TocsinError, match="apt-get install libbpf1"):
        Btf()
