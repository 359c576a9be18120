"""Tools are installed into a running container."""

from __future__ import annotations

import contextlib

import pytest

from tocsin.errors import TocsinError
from tocsin.lab import images
from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]


def test_apk_add(shooting_range: Range) -> None:
    image = shooting_range.lab.build("apk", files={"sbin/apk": images.static_busybox().read_bytes()})
    container = shooting_range.container(image=image)
    with contextlib.suppress(TocsinError):  # this apk does nothing; it is seen all the same
        container.run("/sbin/apk", "add", "--no-cache", "socat")
    shooting_range.alert("package-manager-in-container", container)
