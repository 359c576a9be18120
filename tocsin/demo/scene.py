"""The demo's containers, their everyday work and the attacks on them. Knows Docker, not Tocsin."""

from __future__ import annotations

from dataclasses import dataclass

from tocsin.lab import Container, Lab, Terminal, outside

WEB_PORT = 8080
_WORK = """\
while :; do
  n=$((n + 1)); date > /tmp/last; sort /etc/passwd | head -3 > /tmp/report
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 web 8080 > /tmp/page
  sleep 0.5
done
"""
"""What the worker does all day: small programs, and requests to its neighbour. None of it may raise an alert."""


@dataclass(frozen=True)
class Attack:
    rule: str
    """The rule that must fire."""
    container: str
    """Name of the container it must fire for."""
    text: str


class Scene:
    """A web server, a worker that uses it, and an attacker beside them."""

    def __init__(self, lab: Lab) -> None:
        files = {"www/index.html": b"It works.\n"}
        image = lab.build("demo", files=files)
        self.web = lab.container("web", "httpd", "-f", "-p", str(WEB_PORT), "-h", "/www", image=image)
        self.worker = lab.container("worker", "sh", "-c", _WORK, image=image)
        self.attacker = lab.container("attacker", image=image)
        self.outside = lab.outside()
        self._terminal: Terminal | None = None
        self._web_address = self.web.address()

    def containers(self) -> dict[str, Container]:
        """By the names that people call them."""
        return {"web": self.web, "worker": self.worker, "attacker": self.attacker}

    def open_shell(self) -> Attack:
        """Somebody opens a shell in the web server's container, through a real terminal."""
        self._terminal = self.web.terminal("sh")
        text = f"docker exec -it {self.web.name} sh"
        return Attack("interactive-shell-in-container", self.web.name, text)

    def call_home(self) -> Attack:
        """The worker connects to an address outside."""
        self.worker.start("nc", outside.ADDRESS, str(self.outside.port))
        text = f"{self.worker.name} connects to {outside.ADDRESS}:{self.outside.port}"
        return Attack("unexpected-egress", self.worker.name, text)

    def scan(self) -> Attack:
        """The attacker tries the ports of the web server, one after the other."""
        self.attacker.start(
            "sh", "-c", f"for p in $(seq 1 60); do nc -w 1 {self._web_address} $p < /dev/null; done; true"
        )
        text = f"{self.attacker.name} scans 60 ports of {self.web.name}"
        return Attack("port-scan", self.attacker.name, text)

    def close(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
