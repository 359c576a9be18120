"""Real processes under a real system user: what they are left with, and that Tocsin works with no more."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tocsin import doctor, health, privileges
from tocsin.lab import Lab, responses, runs
from tocsin.lab.instance import Instance
from tocsin.lab.receiver import Receiver
from tocsin.lab.synthetic import Producer, shell
from tocsin.settings import Settings, load

pytestmark = [pytest.mark.kernel, pytest.mark.docker]

Account = pwd.struct_passwd
DISABLED = {"mode": "disabled"}


@contextlib.contextmanager
def new_user() -> Iterator[Account]:
    name = f"tocsin-t{secrets.token_hex(4)}"
    nobody = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    subprocess.run(["useradd", *nobody, name], check=True, capture_output=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def user() -> Iterator[Account]:
    with new_user() as account:
        yield account


def wait_until_all_answer(tocsin: Instance) -> dict[str, Any]:
    """Rather than until all is well: strangers' containers on this host may have something that is not."""
    deadline = time.monotonic() + 20
    while True:
        found: dict[str, Any] = health.ask(tocsin.settings)["processes"]
        if all(process["answers"] for process in found.values()):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def rights(pid: int) -> list[dict[str, list[str]]]:
    """Of each thread: uids, gids, groups, effective and permitted capabilities, no_new_privs."""
    wanted = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapAmb", "NoNewPrivs")
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        rows = (line.split(":", 1) for line in (task / "status").read_text().splitlines())
        found.append({name: value.split() for name, value in rows if name in wanted})
    return found


def assert_unprivileged(tocsin: Instance, user: Account) -> None:
    docker = str(os.stat("/var/run/docker.sock").st_gid)
    for name in privileges.UNPRIVILEGED:
        nothing = ["0" * 16]
        assert rights(tocsin.pid(name))
        for thread in rights(tocsin.pid(name)):
            assert thread == {
                "Uid": [str(user.pw_uid)] * 4,
                "Gid": [str(user.pw_gid)] * 4,
                "Groups": [docker] if name == "playbooks" else [],
                "CapEff": nothing,
                "CapPrm": nothing,
                "CapAmb": nothing,
                "NoNewPrivs": ["1"],
            }, name
    assert all(thread["Uid"] == ["0"] * 4 for thread in rights(tocsin.pid("sensor")))


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


def test_the_whole_loop_works_without_root_and_with_secrets_that_only_root_can_read(
    user: Account, tmp_path: Path
) -> None:
    with Receiver() as receiver, Lab() as lab:
        files = {}
        for variable, text in responses.secrets(receiver).items():
            path = tmp_path / variable
            path.write_text(text)
            path.chmod(0o600)
            files[variable.removeprefix("TOCSIN_SECRET_")] = str(path)
        sections = {"paths": {"user": user.pw_name}, "secrets": files}
        with Instance(sections, playbooks=responses.scoped(lab.run)) as tocsin:
            wait_until_all_answer(tocsin)
            assert_unprivileged(tocsin, user)
            target = lab.container("target")
            run = runs.new()
            Producer(tocsin, 100).send(iter([shell(run, 0, target.id, target.name, {runs.LABEL: lab.run})]))
            target.wait_for("paused")
            assert tocsin.settle(30)
            assert receiver.accepted()
            assert all(message.signed for message in receiver.received)
            evidence = tocsin.settings.state("playbooks") / "evidence"
            assert list(evidence.rglob("*.json"))
            for name in (*privileges.UNPRIVILEGED, "store"):
                assert owners(tocsin.settings.state(name)) == {user.pw_uid}

            # Root asks the same file that the user writes to, before and after a restart of the writer.
            with closing(tocsin.store()) as store:
                before = store.status().documents
            tocsin.kill("forwarder")
            Producer(tocsin, 100).send(iter([shell(run, 1, "ab" * 32, "elsewhere")]))
            assert tocsin.settle(30)
            with closing(tocsin.store()) as store:
                assert store.status().documents > before > 0
            for name in privileges.UNPRIVILEGED:
                tocsin.kill(name)
            wait_until_all_answer(tocsin)
            assert_unprivileged(tocsin, user)
            shown = {name: process["user"] for name, process in wait_until_all_answer(tocsin).items()}
            assert shown == {**dict.fromkeys(privileges.UNPRIVILEGED, user.pw_name), "sensor": "root"}
            said = next(check for check in doctor.examine(tocsin.settings) if check.name == "processes").detail
            assert f"correlator as {user.pw_name}" in said
            assert "stay root" not in tocsin.log.read_text()


def test_root_and_the_user_take_over_each_others_state(user: Account) -> None:
    """Before there is the user, with it, and when it is gone again; each time killed, so that sockets are left."""
    sections = {"paths": {"user": "tocsin-nobody"}, "playbooks": DISABLED}
    with Instance(sections) as tocsin:
        wait_until_all_answer(tocsin)
        log = tocsin.log.read_text()
        assert log.count("must stay root: there is no system user tocsin-nobody") == 1
        assert log.count("useradd --system") == 1
        assert all(thread["Uid"][0] == "0" for name in privileges.UNPRIVILEGED for thread in rights(tocsin.pid(name)))
        assert owners(tocsin.settings.paths.state_dir) == {0}
        config = tocsin.directory / "tocsin.toml"
        text = config.read_text()
        for chosen, owner in ((user.pw_name, user.pw_uid), ("tocsin-nobody", 0), (user.pw_name, user.pw_uid)):
            kill_all(tocsin)
            config.write_text(text.replace("tocsin-nobody", chosen))
            tocsin.directory.chmod(0o711)
            tocsin.start()
            wait_until_all_answer(tocsin)
            assert {thread["Uid"][0] for thread in rights(tocsin.pid("forwarder"))} == {str(owner)}
        assert_unprivileged(tocsin, user)
        for name in (*privileges.UNPRIVILEGED, "store"):
            assert owners(tocsin.settings.state(name)) == {user.pw_uid}


def test_one_that_must_stay_root_still_speaks_with_the_others(user: Account) -> None:
    with tempfile.TemporaryDirectory() as closed:
        store = {"url": f"sqlite:{closed}/events.db"}
        with Instance({"paths": {"user": user.pw_name}, "store": store, "playbooks": DISABLED}) as tocsin:
            wait_until_all_answer(tocsin)
            assert f"forwarder: must stay root: {closed} is closed to the user" in tocsin.log.read_text()
            uids = {name: rights(tocsin.pid(name))[0]["Uid"][0] for name in privileges.UNPRIVILEGED}
            assert uids == {"forwarder": "0", "correlator": str(user.pw_uid), "playbooks": str(user.pw_uid)}
            Producer(tocsin, 100).send(iter([shell(runs.new(), 0, "ab" * 32, "elsewhere")]))
            assert tocsin.settle(20)
            assert tocsin.status("forwarder")["topics"]["alerts"]["next"] >= 1


def kill_all(tocsin: Instance) -> None:
    state = tocsin.state()
    assert state is not None
    for pid in (state["pid"], *(tocsin.pid(name) for name in (*privileges.UNPRIVILEGED, "sensor"))):
        os.kill(pid, 9)
    tocsin.stop()


def test_directories_are_open_to_root_and_the_user_alone(user: Account) -> None:
    with Instance({"paths": {"user": user.pw_name}, "playbooks": DISABLED}) as tocsin, new_user() as stranger:
        paths = tocsin.settings.paths
        assert tocsin.directory.stat().st_mode & 0o7777 == 0o710
        modes = {paths.run_dir: 0o3770, paths.state_dir: 0o710}
        for path, mode in modes.items():
            found = path.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, user.pw_gid, mode)
        tocsin.directory.chmod(0o755)
        lines = (
            ("ls", "{run}", 0, 2),
            ("ls", "{state}/store", 0, 2),
            ("rm", "-f", "{run}/up.json", 1, 1),  # what root says about its children is root's
            ("mv", "{run}/sensor.sock", "{run}/other.sock", 1, 1),
            ("ls", "{state}/sensor", 2, 2),
        )
        for *words, mine, others in lines:
            command = [str(word).format(run=paths.run_dir, state=paths.state_dir) for word in words]
            for account, code in ((user, mine), (stranger, others)):
                done = subprocess.run(
                    command, user=account.pw_uid, group=account.pw_gid, extra_groups=[], capture_output=True
                )
                assert done.returncode == code, (command, account.pw_name, done.stderr)


@pytest.fixture
def home() -> Iterator[Path]:
    """Where other users can pass: pytest's own directories are closed to them."""
    with tempfile.TemporaryDirectory(prefix="tocsin-privileges-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def below(home: Path, user: str, **more: str) -> Settings:
    config = home / "tocsin.toml"
    config.write_text(f'[paths]\nstate_dir = "{home}/state"\nrun_dir = "{home}/run"\nuser = "{user}"\n')
    return load(config, more)


def test_only_what_is_tocsins_own_is_handed_over(user: Account, home: Path) -> None:
    settings = below(home, user.pw_name)
    foreign = home / "foreign"
    foreign.mkdir()
    (foreign / "secret").write_text("root's")
    own = settings.state("correlator")
    (own / "below").mkdir(parents=True)
    (own / "below" / "file").write_text("")
    (own / "to-directory").symlink_to(foreign)
    (own / "to-file").symlink_to(foreign / "secret")
    (own / "second-name").hardlink_to(foreign / "secret")
    settings.paths.run_dir.mkdir()
    for path in (settings.paths.state_dir, settings.paths.run_dir):
        path.chmod(0o700)
    assert in_child(settings) == "None"
    assert owners(own / "below") == {user.pw_uid}
    assert owners(foreign) == {0}


def in_child(settings: Settings) -> str:
    """What give_up_root answers in a process of its own."""
    paths = settings.paths
    program = (
        "from tocsin import privileges; from tocsin.settings import Settings, Paths;"
        f"p = Paths(state_dir={str(paths.state_dir)!r}, run_dir={str(paths.run_dir)!r}, user={paths.user!r});"
        "print(privileges.give_up_root(Settings(paths=p), 'correlator'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()


def reasons(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {hindrance.reason: tuple(names) for hindrance, names in privileges.hindrances(settings).items()}


def test_nothing_hinders_on_this_host(user: Account, home: Path) -> None:
    settings = below(home, user.pw_name)
    assert reasons(settings) == {}
    [found] = [check for check in doctor.examine(settings) if check.name == "least privilege"]
    assert (found.state, found.remedy) == ("ok", "")


def test_without_the_user_the_doctor_says_what_adds_it(home: Path) -> None:
    settings = below(home, "tocsin-nobody")
    assert list(reasons(settings).values()) == [privileges.UNPRIVILEGED]
    [found] = [check for check in doctor.examine(settings) if check.name == "least privilege"]
    assert found.state == "warn"
    assert found.remedy.startswith("useradd --system --user-group --no-create-home")


def test_a_user_that_others_could_stand_in_for_is_refused(user: Account, home: Path) -> None:
    assert list(reasons(below(home, "root"))) == ["the user root shares its group, or is root"]
    subprocess.run(["gpasswd", "-a", "nobody", user.pw_name], check=True, capture_output=True)
    assert "shares its group" in next(iter(reasons(below(home, user.pw_name))))
    subprocess.run(["gpasswd", "-d", "nobody", user.pw_name], check=True, capture_output=True)


def test_code_that_the_user_cannot_read_keeps_root(user: Account, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = home / "clone"
    clone.mkdir(mode=0o700)
    monkeypatch.syspath_prepend(str(clone))
    (clone / "module.py").write_text("")
    settings = below(home, user.pw_name)
    assert reasons(settings) == {f"{clone} is closed to the user {user.pw_name}": privileges.UNPRIVILEGED}
    clone.chmod(0o755)
    assert reasons(settings) == {}


def test_places_that_the_user_cannot_use_keep_root(user: Account, home: Path) -> None:
    name = user.pw_name
    store = home / "elsewhere"
    store.mkdir()
    settings = below(home, user.pw_name, TOCSIN_STORE_URL=f"sqlite:{store}/events.db")
    assert reasons(settings) == {f"{store} is closed to the user {name}": ("forwarder",)}
    settings = below(home, user.pw_name)
    settings.paths.run_dir.mkdir(mode=0o755)
    assert reasons(settings) == {f"{settings.paths.run_dir} is open to others": privileges.UNPRIVILEGED}
    settings.paths.run_dir.chmod(0o700)
    settings.paths.state_dir.mkdir(mode=0o700)
    settings.state("store").symlink_to(store)
    assert reasons(settings) == {f"{settings.state('store')} is a symbolic link": ("forwarder",)}
    settings.state("store").unlink()
    home.chmod(0o700)
    assert reasons(settings) == {f"{home} is closed to the user {name}": privileges.UNPRIVILEGED}


def test_docker_that_is_not_there_yet_or_closed_to_its_group(user: Account, home: Path) -> None:
    socket = home / "docker.sock"
    settings = below(home, user.pw_name, TOCSIN_PLAYBOOKS_DOCKER=f"unix://{socket}")
    assert reasons(settings) == {}  # the group `docker`, until dockerd says otherwise
    socket.touch()
    socket.chmod(0o660)
    assert reasons(settings) == {f"{socket} belongs to the group root": ("playbooks",)}
    os.chown(socket, 0, grp.getgrnam("docker").gr_gid)
    assert reasons(settings) == {}
    socket.chmod(0o600)
    assert reasons(settings) == {f"{socket} is closed to the user {user.pw_name}": ("playbooks",)}
