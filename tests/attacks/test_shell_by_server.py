"""A web shell: the attacker has left a script below the web server's root, and asks for it."""

from __future__ import annotations

import pytest

from tocsin.lab import images
from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

WEB_SHELL = b"#!/bin/sh\necho 'Content-Type: text/plain'\necho\nid\n"


def test_a_request_starts_a_shell(shooting_range: Range) -> None:
    files = {
        "usr/sbin/httpd": images.static_busybox().read_bytes(),
        "www/index.html": b"It works.\n",
        "www/cgi-bin/x": WEB_SHELL,
    }
    image = shooting_range.lab.build("web-shell", files=files)
    container = shooting_range.container("/usr/sbin/httpd", "-f", "-p", "80", "-h", "/www", image=image)
    ask = "printf 'GET %s HTTP/1.0\\r\\n\\r\\n' {} | nc -w 2 127.0.0.1 80"
    assert "It works." in container.run("sh", "-c", ask.format("/index.html"))
    assert shooting_range.stays_silent(container)
    assert "uid=0" in container.run("sh", "-c", ask.format("/cgi-bin/x"))
    shooting_range.alert("shell-by-server", container)
