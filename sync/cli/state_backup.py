"""`headgate state backup` and `headgate state restore`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sync.cli import output, words
from sync.errors import UsageError
from sync.state.nouns import Event

if TYPE_CHECKING:
    from sync.cli.context import Session

__all__ = ["back_up", "restore"]


def back_up(session: Session, file: Path) -> None:
    """Write the archive and say what it has. Raises `UsageError` where the file is there."""
    from sync.state.backup import back_up as write

    if file.exists():
        raise UsageError(f"{file} is there already", fix="name a new file")
    at = session.ledger.now()
    # Told before it is made: then the backup knows of itself, and what is restored from it is what was witnessed.
    session.ledger.record(Event(session.actor, "state.backup", file.name, {}))
    manifest = write(session.engine.folder, file, at)
    size = file.stat().st_size
    told = {"files": len(manifest.files), "bytes": size}
    if session.options.json:
        output.document("state backup", file=str(file), made=words.iso(at), exit_code=0, **told)
        return
    output.say(f"{words.several(len(manifest.files), 'file')}, {size:,} bytes: {file}", kind="ok")
    for place in manifest.elsewhere:
        output.say(f"  not in it: the members that the warehouse keeps in {place}")
    output.say("  keep beside it: config.toml, mappings, the folder of checkpoints, and the secrets they name")


def restore(session: Session, file: Path, reason: str, *, over: bool, in_step: bool) -> None:
    """Check the archive, put it in place, and say what a person has to do now."""
    from sync.state import restoring
    from sync.state.backup import read_backup

    manifest = read_backup(file)
    made = words.iso(manifest.made_at)
    event = Event(session.actor, "state.restored", file.name, {"made": made, "reason": reason, "in_step": in_step})
    paused, aside = restoring.restore(
        file,
        manifest,
        session.engine.folder,
        time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        over=over,
        record=session.audit.append,
        event=event,
        pause="" if in_step else f"restored from a backup of {made}: what was sent since is not known here",
    )
    if session.options.json:
        said = {"file": str(file), "made": made, "paused": paused, "before": str(aside) if aside else None}
        output.document("state restore", exit_code=0, **said)
        return
    output.say(f"the state of {made} is in place: {words.several(len(manifest.files), 'file')}", kind="ok")
    if aside is not None:
        output.say(f"  what was there before is in {aside}: it has personal data, delete it when all is well")
    if paused:
        output.say(f"  paused, for destinations may be ahead of this state: {', '.join(paused)}")
        output.say(f"  of each: {session.command('state verify SYNC')}, where it can be read; then")
        output.say(
            f"  {session.command('resume SYNC')}; what is at the destination and not known here stays there"
        )
    output.say("  people who were forgotten since then have to be forgotten again, and tokens revoked again")
