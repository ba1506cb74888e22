"""Checks of what a connector declares: its name, configuration, objects and limits."""

from __future__ import annotations

import re

from pydantic import ValidationError

from sync.sdk.connector import Config
from sync.testing.case import Case, require, watching
from sync.testing.check import check

TYPES = {"string", "integer", "number", "boolean", "date", "timestamp", "json"}
_SECRET = re.compile(r"(^|_)(token|secret|password|passphrase|api_key|private_key|credential)s?($|_)")


@check("it has a name, a title and documentation", answer=False, per_object=False)
def named(case: Case) -> None:
    """Names are written in config.toml."""
    connector = case.connector
    require(re.fullmatch(r"[a-z][a-z0-9_]*", connector.name), f"'{connector.name}' is not a lower-case name")
    require(connector.title.strip(), "`title` is empty")
    require(connector.docs.strip(), "`docs` is empty: say what is needed to set the destination up")


@check("its configuration is frozen and refuses unknown keys", answer=False, per_object=False)
def strict_configuration(case: Case) -> None:
    """A misspelt key must not be ignored."""
    model = case.connector.config_model
    require(issubclass(model, Config), "`config_model` is not a sync.sdk.connector.Config")
    try:
        model.model_validate({**case.contract.options(case.folder), "no_such_key": 1})
    except ValidationError:
        pass
    else:
        require(False, "an unknown key in the configuration is accepted")
    require(model.model_config.get("frozen"), "the configuration can be changed after it was read")


@check("secrets of its configuration are SecretStr and are not shown", answer=False, per_object=False)
def secret_configuration(case: Case) -> None:
    """Anything printed or logged must not hold a credential."""
    for name, option in case.connector.config_model.model_fields.items():
        if _SECRET.search(name) and not name.endswith("_url"):
            require("SecretStr" in str(option.annotation), f"the option '{name}' is not a SecretStr")
    shown = f"{case.config!r} {case.config} {case.connector.account(case.config)}"
    require(not any(s in shown for s in case.secrets), "a secret shows in the configuration's text or the account")


@check("its objects are consistent", answer=False)
def consistent_objects(case: Case) -> None:
    """The engine plans by these."""
    spec = case.spec
    require(spec.name == case.object, f"the object '{case.object}' calls itself '{spec.name}'")
    require(spec.title.strip(), "the object has no title")
    require(spec.ops, "the object has no ops")
    require(spec.irreversible <= spec.ops, "an irreversible op is not among the object's ops")
    require(spec.identifiers or spec.open_fields, "nothing says whom a change is about: there is no identifier")


@check("its fields have known types and names of their own", answer=False)
def known_fields(case: Case) -> None:
    """Types decide how values are sent."""
    names = [f.name for f in case.spec.fields]
    require(len(names) == len(set(names)), "two fields have the same name")
    for one in case.spec.fields:
        require(one.type in TYPES, f"the field '{one.name}' has the unknown type '{one.type}'")
        require(one.hash in (None, "sha256", "md5"), f"the field '{one.name}' has the unknown hash '{one.hash}'")


@check("its limits can be kept", answer=False)
def possible_limits(case: Case) -> None:
    """A limit of nothing would never send anything."""
    limits = case.spec.limits
    require(limits.batch_size is None or limits.batch_size >= 1, "`batch_size` is below 1")
    require(limits.batch_bytes is None or limits.batch_bytes >= 1000, "`batch_bytes` is below 1,000")
    require(limits.concurrency >= 1, "`concurrency` is below 1")
    require(all(r.requests >= 1 and r.per > 0 for r in limits.rates), "a rate allows nothing")


@check("making it does nothing: no requests, no connections, no output", answer=False, per_object=False)
def quiet_construction(case: Case) -> None:
    """Listing and planning make connectors they never push to."""
    wire = case.wire()
    with watching() as watch:
        case.connect(wire)
    require(not wire.requests and not watch.connected, "it opens a connection when it is made")
    require(not watch.slept, "it sleeps when it is made")
    require(not watch.output.getvalue(), "it prints when it is made")
