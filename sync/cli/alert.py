"""`headgate alert`: what is wrong and who was told; mute it with a reason, try a notifier."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from sync.cli import output, words
from sync.cli.context import Session, opened, reason_of
from sync.cli.options import Options, group
from sync.conditions import CONDITIONS
from sync.durations import format_duration, parse_duration
from sync.errors import UsageError
from sync.state.alerts import Mute
from sync.state.nouns import Event

if TYPE_CHECKING:
    from sync.state.alerts import Alert, AlertMessage

_MOST_S = 90 * 86400.0
_on = click.option(
    "--on", "condition", type=click.Choice([c.value for c in CONDITIONS]), help="Only this (default: everything)."
)


@group("alert", default="list")
def command() -> None:
    """What is wrong now, who was told, and what is muted.

    The daemon tells; `alert send` does it once, where syncs are run without one.
    """


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="What is over, and messages that were sent, too.")
@click.pass_obj
def list_(options: Options, everything: bool) -> None:
    """List what is wrong, what is muted, and messages that nobody took yet."""
    from sync.cli.telling import teller

    with opened(options) as session:
        ledger = session.ledger
        alerts = [*teller(session).unseen(), *(a for a in ledger.alerts() if everything or a.open)]
        messages = ledger.messages() if everything else ledger.messages(waiting=True)
        mutes = ledger.mutes()
        if options.json:
            output.document(
                "alert list",
                alerts=[_alert(a) for a in alerts],
                mutes=[asdict(m) for m in mutes],
                messages=[asdict(m) for m in messages],
                notifiers=sorted(session.project.settings.alerts),
                exit_code=0,
            )
            return
        for alert in alerts:
            _show(alert)
        if not alerts:
            output.say("nothing is wrong that people are told of", kind="ok")
        for mute in mutes:
            output.say(f"muted until {_moment(mute.until)}: {mute.subject} {mute.condition}".rstrip())
            output.say(f"    {words.masked(mute.reason)}")
        for message in messages:
            _show_message(message)
        if not session.project.settings.alerts:
            output.say("nobody is told: config.toml has no [alerts.NAME]", kind="warning")


@command.command("mute")
@click.argument("subject", metavar="SYNC|cohort:NAME|destination:NAME|project:files")
@_on
@click.option("--for", "time", required=True, metavar="TIME", help="For how long: 30m, 4h, 7d; 90 days at most.")
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.pass_obj
def mute(options: Options, subject: str, condition: str | None, time: str, reason: str) -> None:
    """Tell nobody of a subject for a while. What is still wrong then is told, and what is over, too."""
    why, seconds = reason_of(reason), _seconds(time)
    with opened(options) as session:
        _known(session, subject)
        now = session.ledger.now()
        kept = Mute(subject, condition or "", now + seconds, why, session.actor, now)
        data = {"condition": condition or "all", "until": _moment(kept.until), "reason": why}
        session.ledger.mute(subject, kept.condition, kept, [Event(session.actor, "alert.muted", subject, data)])
        if options.json:
            output.document("alert mute", mute=asdict(kept), exit_code=0)
            return
        output.say(f"nobody is told of {subject} for {format_duration(seconds)}", kind="ok")
        more = f" --on {condition}" if condition else ""
        output.say(f"  hear of it again: {session.command(f'alert unmute {subject}{more}')}")


@command.command("unmute")
@click.argument("subject", metavar="SYNC|cohort:NAME|destination:NAME")
@_on
@click.pass_obj
def unmute(options: Options, subject: str, condition: str | None) -> None:
    """Tell people of it again."""
    with opened(options) as session:
        event = Event(session.actor, "alert.unmuted", subject, {"condition": condition or "all"})
        if not session.ledger.mute(subject, condition or "", None, [event]):
            muted = ", ".join(f"{m.subject} {m.condition}".strip() for m in session.ledger.mutes())
            raise UsageError(
                f"{subject} is not muted so", fix=f"muted are: {muted}" if muted else "nothing is muted"
            )
        if options.json:
            output.document("alert unmute", subject=subject, condition=condition, exit_code=0)
            return
        output.say(f"people are told of {subject} again", kind="ok")


@command.command("test")
@click.argument("name")
@click.pass_obj
def test(options: Options, name: str) -> None:
    """Send a test message to one notifier, [alerts.NAME] of config.toml."""
    from sync.alerts.notifier import Notifier
    from sync.alerts.wording import Letter, Severity
    from sync.files import suggest

    with opened(options) as session:
        configured = session.project.settings.alerts
        if name not in configured:
            fix = suggest(name, configured, "Configured") or f"add [alerts.{name}] to config.toml"
            raise UsageError(f"there is no notifier `{name}`", code="HG129", fix=fix)
        line = "This is a test: messages of this project arrive here."
        letter = Letter("[Headgate] test", Severity.INFO, False, (line,), (session.command("alert list"),))
        Notifier(name, configured[name], session.root).send(letter)
        if options.json:
            output.document("alert test", notifier=name, exit_code=0)
            return
        output.say(f"{name} took a test message", kind="ok")


@command.command("send")
@click.pass_obj
def send(options: Options) -> None:
    """Look what changed, and send what is due, once. The daemon does so by itself."""
    from sync.cli.telling import teller
    from sync.logging import configure

    configure(options.verbose, json=options.json)
    with opened(options) as session:
        taken = teller(session).once()
        if options.json:
            output.document("alert send", sent=taken, exit_code=0)
            return
        output.say(f"{words.several(taken, 'message')} sent", kind="ok")


def _seconds(text: str) -> float:
    try:
        seconds = float(parse_duration(text))
    except ValueError as error:
        raise UsageError(str(error), fix="--for 4h") from None
    if not 0 < seconds <= _MOST_S:
        raise UsageError("a mute lasts 90 days at most", fix="--for 7d")
    return seconds


def _known(session: Session, subject: str) -> None:
    """Raise `UsageError` where the project has no such subject."""
    from sync.alerts.observing import FILES

    syncs = session.project.syncs()
    cohorts = {f"cohort:{c.cohort.name}" for c in syncs}
    destinations = {f"destination:{d}" for d in session.project.destinations}
    known = {*(c.sync.name for c in syncs), *cohorts, *destinations, FILES}
    if subject not in known:
        from sync.files import suggest

        raise UsageError(f"there is no {subject}", fix=suggest(subject, known, "There are"))


def _alert(alert: Alert) -> dict[str, Any]:
    from sync.alerts.wording import severity

    return {**asdict(alert), "id": alert.id, "severity": severity(alert.condition).value}


def _show(alert: Alert) -> None:
    from sync.alerts.wording import Severity, severity

    grave = severity(alert.condition) is Severity.CRITICAL
    kind = "ok" if not alert.open else "error" if grave else "warning"
    told = f"told {', '.join(alert.told)}" if alert.told else "nobody was told"
    if not alert.number:
        told = "nobody looked since it is so: a daemon does now and then, and `headgate alert send` once"
    flapping = ", on and off" if alert.flapping else ""
    state = "since" if alert.open else "over since"
    output.say(f"{alert.condition}{flapping}: {alert.subject}", kind=kind)
    when = f"{state} {_moment(alert.since)}; " if alert.number else ""
    output.say(f"    {when}{told}" if alert.open else f"    {state} {_moment(alert.since)}")


def _show_message(message: AlertMessage) -> None:
    what = f"{message.kind} {message.condition} of {message.subject} to {message.target}"
    if message.sent_at is not None:
        output.say(f"sent {_moment(message.sent_at)}: {what}")
    elif message.gave_up_at is not None:
        output.say(f"given up {_moment(message.gave_up_at)}: {what}: {message.problem}", kind="error")
    elif message.problem:
        output.say(
            f"not sent in {words.several(message.attempts, 'attempt')}: {what}: {message.problem}", kind="warning"
        )
    else:
        output.say(f"to be sent: {what}")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
