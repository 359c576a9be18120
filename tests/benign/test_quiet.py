"""Everyday work raises no alert: web server, database and cron with the load of half an hour pressed into a minute."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from ecs_mappings.event import Event
from tocsin.lab import Container, Lab
from tocsin.lab.instance import Instance
from tocsin.lab.tail import Tail

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

COMPRESSED_S = 60.0
HALF_AN_HOUR_S = 1800
CRON_FIRES = HALF_AN_HOUR_S // 60
HEALTH_CHECKS = HALF_AN_HOUR_S // 30
REQUESTS = HALF_AN_HOUR_S * 2
"""Two a second, to each server."""

NGINX = b"""\
worker_processes 2; daemon off; error_log stderr;
events { worker_connections 64; }
http { access_log off; server { listen 80; root /srv; } }
"""
CRON = """\
while :; do
  sleep $0
  sh -c 'cd /tmp && date > stamp && tar -cf etc.tar /etc && gzip -f etc.tar'
  find /tmp -name '*.gz' -mmin +10 | xargs rm -f
  awk -F: '{print $1}' /etc/passwd | sort | uniq -c > /tmp/users
done
"""


def batter(container: Container, every_s: float, script: str, until: float) -> None:
    """`docker exec`, as Docker's health checks and deployment tools do it, again and again."""
    while time.monotonic() < until:
        container.run("sh", "-c", script)
        time.sleep(every_s)


def test_half_an_hour_of_nginx_redis_and_cron_raises_no_alert() -> None:
    with Lab() as lab, Instance({"playbooks": {"mode": "dry-run"}}) as tocsin:
        begun = datetime.now(UTC)
        image = lab.build(
            "servers",
            programs=("nginx", "redis-server", "redis-cli"),
            files={
                "etc/nginx.conf": NGINX,
                "srv/index.html": b"It works.\n",
                "var/log/nginx/error.log": b"",
                "var/lib/nginx/.keep": b"",
            },
        )
        nginx = lab.container("nginx", "nginx", "-c", "/etc/nginx.conf", image=image)
        redis = lab.container("redis", "redis-server", "--protected-mode", "no", image=image)
        pause = f"{COMPRESSED_S / REQUESTS:.4f}"
        get = f"while :; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 nginx 80 > /tmp/page; sleep {pause}; done"
        client = lab.container("client", "sh", "-c", get, image=image)
        set_ = f"redis-cli -h redis -r -1 -i {pause} incr n"
        application = lab.container("application", "sh", "-c", set_, image=image)
        cron = lab.container("cron", "sh", "-c", CRON, str(COMPRESSED_S / CRON_FIRES), image=image)
        everyone = [nginx, redis, client, application, cron]

        until = time.monotonic() + COMPRESSED_S
        checks = [
            threading.Thread(target=batter, args=(container, COMPRESSED_S / HEALTH_CHECKS, script, until))
            for container, script in ((nginx, "test -s /srv/index.html"), (redis, "redis-cli ping | grep -q PONG"))
        ]
        for check in checks:
            check.start()
        for check in checks:
            check.join()
        assert {container.name: container.status() for container in everyone} == {c.name: "running" for c in everyone}

        store = tocsin.store()
        tail = Tail(store, begun)
        tail.poll(whole=True)
        store.close()
        mine = [e for e in tail.events if e.container and e.container.id in {c.id for c in everyone}]
        assert [(e.rule, e.container, e.process) for e in mine if e.event.kind == "alert"] == []
        assert programs(mine)["tar"] >= CRON_FIRES * 0.8
        assert programs(mine)["nc"] >= REQUESTS * 0.3  # the load was there; the two cores are shared with what watches
        assert [e.message for e in tail.events if e.event.action == "events_lost"] == []


def programs(events: list[Event]) -> Counter[str]:
    """How often each was run, by the name it was called by: in busybox all are one file."""
    lines = (e.process.args for e in events if e.event.action == "exec" and e.process)
    return Counter(arguments[0] for arguments in lines if arguments)
