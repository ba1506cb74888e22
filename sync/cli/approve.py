"""`headgate approve`: release a held plan, with a reason, and deliver it."""

from __future__ import annotations

import click

from sync.cli import output
from sync.cli.context import Session, opened, reason_of
from sync.cli.observer import observing
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.cli.run import finish
from sync.cli.signals import draining
from sync.state.nouns import APPROVED_PLANS, Decision, Plan


@_command("approve")
@click.argument("plan")
@click.option("--reason", required=True, help="Why this is right; kept in the audit log.")
@click.option("--no-removals", is_flag=True, help="Release additions and updates, keep the removals held.")
@click.option("--later", is_flag=True, help="Record the decision only; the next run delivers the plan.")
@click.pass_obj
def command(options: Options, plan: str, reason: str, no_removals: bool, later: bool) -> int:
    """Release a held plan and deliver exactly it.

    The decision binds the plan's digest: where the source, the members or the mapping moved since, it is void.
    """
    decision = Decision.APPROVE_WITHOUT_REMOVALS if no_removals else Decision.APPROVE
    with opened(options) as session:
        decided = decide(session, plan, decision, reason_of(reason))
        released = decided.status in APPROVED_PLANS
        if later or not released:
            return _recorded(session, decided, released=released)
        if not options.json:
            output.say(f"plan {decided.id} of {decided.sync} is approved by {session.actor}", kind="ok")
        with (
            observing(verbose=options.verbose > 0) as observer,
            draining(lambda m: output.say(m, err=True)) as stop,
        ):
            runner = session.runner(trigger="approval", observer=observer, stop=stop)
            report = runner.run(session.job(decided.sync), plan=decided.digest)
        return finish(session, [report], "approve", stopped=stop.is_set())


def decide(session: Session, name: str, decision: Decision, reason: str) -> Plan:
    """Keep this person's decision on a plan; raises `DecisionError` where it cannot be decided on."""
    from sync.engine.approvals import decide as keep
    from sync.engine.approvals import refuse_damaged, refuse_unfit

    plan = session.plan(name)
    job = session.job(plan.sync)
    if decision is not Decision.REJECT:
        refuse_unfit(plan, session.ledger.now())
        refuse_damaged(session.ledger, session.engine, plan, session.actor)
    return keep(session.ledger, job, plan, decision, session.actor, reason)


def _recorded(session: Session, plan: Plan, *, released: bool) -> int:
    code = 0 if released else 3
    count = len({a.actor for a in session.ledger.approvals(plan.id)})
    if session.options.json:
        fields = {"sync": plan.sync, "plan": plan.id, "digest": plan.digest, "status": plan.status.value}
        output.document("approve", **fields, approvals=count, needs=plan.needs, exit_code=code)
    elif released:
        output.say(f"plan {plan.id} of {plan.sync} is approved", kind="ok")
        output.say(f"  next: {session.command(f'run {plan.sync} --plan {plan.id}')}")
    else:
        output.say(f"your approval is kept; plan {plan.id} has {count} of {plan.needs}", kind="warning")
    return code
