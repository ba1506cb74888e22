"""`headgate doctor`: check the installation, the state and every connection."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sync.cli import output, words
from sync.cli.context import Session, opened
from sync.cli.doctor_state import encryption, loose, loose_secrets
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.cli.room import rooms
from sync.durations import format_duration
from sync.errors import HeadgateError

if TYPE_CHECKING:
    from sync.alerts.notifier import Notifier
    from sync.engine.job import SyncJob
    from sync.project import Project
    from sync.state.alerts import AlertMessage

_LOW_DISK = 1 << 30
_ENDS_SOON = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `warning` is worth a look and does not fail the command."""

    name: str
    ok: bool
    message: str
    fix: str = ""
    warning: bool = False


@_command("doctor")
@click.option("--offline", is_flag=True, help="Do not ask sources and destinations.")
@click.pass_obj
def command(options: Options, offline: bool) -> int:
    """Check the installation, the state and every connection; exits 1 where anything is wrong."""
    checks = [*installation()]
    with opened(options) as session:
        project = _guard("project", lambda: _project(session))
        checks.append(project)
        if project.ok:
            checks += [*_state(session)]
            checks += [] if offline else [*_connections(session)]
            checks += [*_logs(session)]
            checks += [*_room(session)]
            checks += [*_notifiers(session)]
        code = 0 if all(c.ok for c in checks) else 1
        if options.json:
            output.document("doctor", ok=code == 0, checks=[asdict(c) for c in checks], exit_code=code)
            return code
        for check in checks:
            kind = "error" if not check.ok else ("warning" if check.warning else "ok")
            output.say(f"{check.name}: {check.message}", kind=kind)
            if check.fix:
                output.say(f"    fix: {check.fix}")
        return code


def installation() -> Iterator[Check]:
    """Versions, and who owns our top-level packages."""
    yield Check("headgate", True, version("headgate"))
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check(
        "python", sys.version_info >= (3, 11), python, "" if sys.version_info >= (3, 11) else "use 3.11 or later"
    )
    for name in ("duckdb", "sqlalchemy", "pyarrow", "httpx"):
        try:
            yield Check(name, True, version(name))
        except PackageNotFoundError:
            yield Check(name, False, "is not installed", "install Headgate again")
    owners = packages_distributions()
    for package in ("sync", "connectors"):
        yield ownership(package, owners.get(package, []))


def ownership(package: str, owners: list[str]) -> Check:
    """Does nobody else install a top-level package of this name?"""
    others = sorted({owner for owner in owners if owner.lower() != "headgate"})
    if others:
        message = f"also installed by {', '.join(others)}: one of the two overwrites the other"
        return Check(f"package {package}", False, message, "install Headgate in an environment of its own")
    return Check(f"package {package}", True, "ours alone")


def _project(session: Session) -> Check:
    from sync.project import examine

    project, problems = examine(session.root)
    errors = [p for p in problems if not p.warning]
    if project is None or errors:
        return Check("project", False, f"{len(errors)} to mend", session.command("validate --offline"))
    return Check("project", True, f"{words.several(len(project.syncs()), 'sync')} in {session.root.resolve()}")


def _guard(name: str, check: Callable[[], Check]) -> Check:
    """A check whose error is its finding."""
    try:
        return check()
    except HeadgateError as error:
        return Check(name, False, f"{error.message} [{error.code}]", error.fix)
    except Exception as error:  # noqa: BLE001 - a broken plugin must not end the doctor's round
        return Check(name, False, f"failed with {type(error).__name__}", f"{name}: run with --debug to see more")


def _state(session: Session) -> Iterator[Check]:
    ledger = _guard("ledger", lambda: _ledger(session))
    yield ledger
    folder = session.project.settings.state_folder
    if folder.is_dir():
        yield permissions(folder)
        free = shutil.disk_usage(folder).free
        message = f"{free / (1 << 30):.1f} GiB free"
        yield Check(
            "disk", free > _LOW_DISK // 16, message, "make room" if free < _LOW_DISK else "", free < _LOW_DISK
        )
    yield _guard("encryption", lambda: _encryption(session.project))
    yield _guard("secret files", lambda: _secrets(session.project))
    if ledger.ok:
        yield from _every("state files", lambda: _files(session))
        yield _guard("audit log", lambda: _audit(session))
        yield from _every("tokens", lambda: _tokens(session))


def _every(name: str, checks: Callable[[], Iterator[Check]]) -> list[Check]:
    """Checks of one name; an error of all of them is their finding."""
    found: list[Check] = []

    def gather() -> Check:
        found.extend(checks())
        return Check(name, True, "")

    ended = _guard(name, gather)
    return found if ended.ok else [*found, ended]


def permissions(folder: Path) -> Check:
    """May nobody but the owner read the state?"""
    found = loose(folder)
    if not found:
        return Check("state folder", True, f"{folder}, for its owner only")
    names, fix = ", ".join(str(path) for path in found[:3]), f"chmod -R go-rwx {folder}"
    if found[0] == folder:
        return Check("state folder", False, f"others may read {names}", fix)
    # Nobody else gets into the folder; a copy or a backup of it would let them.
    return Check("state folder", True, f"{folder} is its owner's, and in it others might read {names}", fix, True)


def _encryption(project: Project) -> Check:
    message, fix = encryption(project)
    return Check("encryption", not fix, message, fix)


def _secrets(project: Project) -> Check:
    found = loose_secrets(project)
    if not found:
        return Check("secret files", True, "none that others may read")
    names = ", ".join(str(path) for path in found[:3])
    return Check("secret files", True, f"others may read {names}", f"chmod go-rwx {names}", warning=True)


def _files(session: Session) -> Iterator[Check]:
    """Are members and plans what the ledger recorded?"""
    from sync.engine.trust import damages

    jobs = session.project.jobs(names=(), select=(), exclude=(), disabled=True)
    found = [error for job in jobs for error in damages(session.ledger, session.engine, job.name)]
    for error in found:
        yield Check("state files", False, f"{error.message} [{error.code}]", error.fix)
    if not found:
        yield Check("state files", True, "members and plans are what the ledger recorded")


def _ledger(session: Session) -> Check:
    session.ledger.check(thorough=True)
    return Check("ledger", True, f"{session.project.settings.state_folder / 'ledger.db'}")


def _audit(session: Session) -> Check:
    with session.ledger.reading() as connection:
        result = session.audit.verify(connection)
    if not result.ok:
        return Check("audit log", False, result.findings[0].message, session.command("audit verify"))
    return Check("audit log", True, f"{words.several(result.events, 'event')}, {result.witnessed:,} vouched for")


def _tokens(session: Session) -> Iterator[Check]:
    """Which tokens end soon: whoever has one is refused from then on."""
    now = session.ledger.now()
    for token in session.ledger.access.tokens():
        left, life = token.expires_at - now, token.expires_at - token.created_at
        if token.valid(now) and left < min(_ENDS_SOON, life / 5):
            message = f"ends in {format_duration(left)}"
            fix = f"make another one for whoever has it: {session.command('token create NAME ...')}"
            yield Check(f"token {token.name}", True, message, fix, warning=True)


def _connections(session: Session) -> Iterator[Check]:
    sources, destinations = set(), set()
    for job in session.project.jobs(names=(), select=(), exclude=()):
        connection = job.cohort.source.connection
        if connection not in sources:
            sources.add(connection)
            yield _guard(f"source {connection}", partial(_source, job))
        if job.destination not in destinations:
            destinations.add(job.destination)
            yield _guard(f"destination {job.destination}", partial(_destination, job))


def _room(session: Session) -> Iterator[Check]:
    """What each account has room for, as far as anything was sent to it."""
    jobs = session.project.jobs(names=(), select=(), exclude=())
    for one in rooms(session.project.settings.state_folder, jobs):
        yield Check(f"room {one.name}", True, one.words(), warning=one.down)


def _logs(session: Session) -> Iterator[Check]:
    """Is what was run in the sync logs, and whoever was forgotten not, as far as we know."""
    from sync.state.log_mark import NOTE, LogMark

    jobs = {job.name: job for job in session.project.jobs(disabled=True)}
    for name in sorted({*jobs, *session.ledger.known_syncs()}):
        mark, job = LogMark.read(session.ledger.note(name, NOTE)), jobs.get(name)
        if mark.failed:
            yield Check(f"sync log {name}", True, mark.failed, "the next run catches up", warning=True)
        elif mark.erasing:
            where = ", ".join(f"{place.source}, {place.schema}" for place in mark.places if place.erasures)
            message = f"it has rows of somebody who was forgotten, in {where}"
            fix = f"have that source in config.toml, and {session.command('person ID --forget')} again"
            yield Check(f"sync log {name}", True, message, fix, warning=True)
        elif job is not None and job.log is not None:
            message = "up to date" if mark.places else "the first run begins it"
            yield Check(f"sync log {name}", True, f"{message}, in {job.log.source}, {job.log.schema}")


def _notifiers(session: Session) -> Iterator[Check]:
    """Can each message be sent, and was it; no message is sent for this."""
    settings = session.project.settings
    if not settings.alerts:
        return
    from sync.alerts.notifier import Notifier

    waiting: dict[str, AlertMessage] = {}
    for message in session.ledger.messages(waiting=True):
        waiting.setdefault(message.target, message)
    for name, one in settings.alerts.items():
        notifier, oldest = Notifier(name, one, session.root), waiting.get(name)
        if oldest is not None and oldest.problem:
            why = f"{oldest.problem}; {words.several(oldest.attempts, 'attempt')} so far"
            yield Check(f"alerts {name}", True, why, session.command(f"alert test {name}"), warning=True)
        else:
            yield _guard(f"alerts {name}", partial(_notifier, notifier))


def _notifier(notifier: Notifier) -> Check:
    notifier.check()
    return Check(f"alerts {notifier.name}", True, "its address is there, and apprise knows it")


def _source(job: SyncJob) -> Check:
    return Check(f"source {job.cohort.source.connection}", True, job.source().check())


def _destination(job: SyncJob) -> Check:
    connector = job.connect(lambda: None)
    try:
        connector.check()
    finally:
        connector.http.close()
    return Check(f"destination {job.destination}", True, "answers, and takes our credentials")
