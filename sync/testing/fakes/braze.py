"""A Braze workspace in memory: profiles, their attributes, and subscription groups.

Shapes, caps and headers are those of braze.com/docs/api; the keys of an error of `/users/track` are as other
public integrations keep them. The texts of most messages are made up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import httpx

from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeBraze", "ready"]

Json = dict[str, Any]
_IDS = ("external_id", "user_alias", "braze_id", "email", "phone")
_SWITCHES = {"_update_existing_only", "_merge_objects", "push_token_import"}
_STATES = {"email_subscribe": ("opted_in", "unsubscribed", "subscribed")}
_MOST, _MOST_SET, _BYTES, _PAGE = 75, 50, 4_000_000, 50


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "external_id": lambda v: _is_text(v) and 0 < len(v) <= 997,
    "email": lambda v: _is_text(v) and bool(re.fullmatch(r"[^\s@]+@[^\s@]+\.[^\s@]+", v)),
    "phone": lambda v: _is_text(v) and bool(re.fullmatch(r"\+?[0-9 ()-]{5,20}", v)),
    "country": lambda v: _is_text(v) and bool(re.fullmatch("[A-Z]{2}", v)),
    "dob": lambda v: _is_text(v) and bool(re.fullmatch(r"\d{4}-\d\d-\d\d", v)),
    "first_name": _is_text,
    "last_name": _is_text,
    "home_city": _is_text,
    "email_subscribe": lambda v: v in _STATES["email_subscribe"],
    "_update_existing_only": lambda v: isinstance(v, bool),
}


class FakeBraze(Fake):
    """`profiles` has attributes, `external_id` and `email` among them; `groups` the state of each subscription
    group by the identifier it was set with. Objects are processed at once, where Braze queues them.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/users/track", "_track"),
        ("POST", "/v2/subscription/status/set", "_set"),
        ("GET", "/segments/list", "_segments"),
        ("GET", "/custom_attributes", "_attributes"),
    )

    def __init__(self, api_key: str = "key-test", **options: Any) -> None:
        super().__init__(**options)
        self.api_key = api_key
        self.profiles: list[Json] = []
        self.groups: dict[str, dict[str, str]] = {}

    def profile(self, **who: str) -> Json | None:
        """The profile with this identifier."""
        ((name, value),) = who.items()
        return next((one for one in self.profiles if one.get(name) == value), None)

    # -- what every answer has in common

    def authorised(self, request: httpx.Request) -> bool:
        """By a bearer token."""
        return bool(request.headers.get("authorization") == f"Bearer {self.api_key}")

    def unauthorised(self) -> httpx.Response:
        """401."""
        return _error(401, "Invalid API key")

    def too_fast(self, wait: float) -> httpx.Response:
        """429; the header says when the window is over, in seconds since 1970."""
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time() + wait + 0.999))}
        return httpx.Response(429, headers=headers, json={"message": "You have exceeded your rate limit."})

    def rate_headers(self) -> Mapping[str, str]:
        """Every answer tells the room left."""
        if self.rate is None:
            return {}
        left = {"X-RateLimit-Limit": str(self.rate.requests), "X-RateLimit-Remaining": str(self.room)}
        return left | {"X-RateLimit-Reset": str(int(time.time() + self.rate.per))}

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever was asked
        """404."""
        return _error(404, "Not Found")

    # -- users

    def _track(self, asked: Asked) -> httpx.Response:
        """Refused objects are errors beside a success; only where all are refused is the request, too."""
        if len(asked.request.content) > _BYTES:
            return _error(413, "The payload is too large")
        given = asked.body.get("attributes") if isinstance(asked.body, dict) else None
        if not isinstance(given, list) or not given:
            return _error(400, _NOTHING)
        if len(given) > _MOST:
            return _error(400, f"A request takes {_MOST} objects")
        errors = [
            {"index": index, "input_array": "attributes", "type": wrong}
            for index, one in enumerate(given)
            if (wrong := _wrong(one))
        ]
        if len(errors) == len(given):
            return httpx.Response(400, json={"message": _NOTHING, "errors": errors})
        refused = {error["index"] for error in errors}
        for index, one in enumerate(given):
            if index not in refused:
                self._write(one)
        answer: Json = {"message": "success", "attributes_processed": len(given) - len(errors)}
        return httpx.Response(201, json=answer | ({"errors": errors} if errors else {}))

    def _write(self, one: Json) -> None:
        name = next(name for name in _IDS if name in one)
        profile = next((p for p in self.profiles if p.get(name) == one[name]), None)
        if profile is None:
            if one.get("_update_existing_only"):
                return
            profile = {}
            self.profiles.append(profile)
        for key, value in one.items():
            if key in _SWITCHES:
                continue
            if value is None:
                profile.pop(key, None)
            else:
                profile[key] = value

    # -- subscription groups

    def _set(self, asked: Asked) -> httpx.Response:
        given = asked.body.get("subscription_groups") if isinstance(asked.body, dict) else None
        if not isinstance(given, list) or not given:
            return _error(400, "'subscription_groups' is required")
        for group in given:
            if wrong := self._wrong_group(group):
                return _error(400, wrong)
        for group in given:
            people = [*group.get("external_ids", []), *group.get("emails", []), *group.get("phones", [])]
            self.groups[group["subscription_group_id"]].update(dict.fromkeys(people, group["subscription_state"]))
        return httpx.Response(201, json={"message": "success"})

    def _wrong_group(self, group: Json) -> str:
        lists = [group[name] for name in ("external_ids", "emails", "phones") if name in group]
        if group.get("subscription_group_id") not in self.groups:
            return "No subscription group has this 'subscription_group_id'"
        if group.get("subscription_state") not in ("subscribed", "unsubscribed"):
            return "'subscription_state' must be 'subscribed' or 'unsubscribed'"
        if "emails" in group and "phones" in group:
            return "'emails' and 'phones' cannot both be given"
        if not lists or not all(isinstance(one, list) and 1 <= len(one) <= _MOST_SET for one in lists):
            return f"1 to {_MOST_SET} users are needed"
        return ""

    # -- the workspace

    def _segments(self, _: Asked) -> httpx.Response:
        return httpx.Response(200, json={"message": "success", "segments": []})

    def _attributes(self, asked: Asked) -> httpx.Response:
        names = sorted({name for profile in self.profiles for name in profile} - _CHECKS.keys() - set(_IDS))
        start = int(asked.params.get("cursor", "0"))
        kinds = {n: next(p[n] for p in self.profiles if n in p) for n in names}
        page = [
            {"name": n, "data_type": _kind(kinds[n]), "status": "Active"} for n in names[start : start + _PAGE]
        ]
        more = start + _PAGE < len(names)
        link = f'<{asked.request.url.copy_with(query=None)}?cursor={start + _PAGE}>; rel="next"'
        answer = {"message": "success", "attributes": page}
        return httpx.Response(200, json=answer, headers={"Link": link} if more else {})


_NOTHING = "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields."


def _wrong(one: Any) -> str:
    """What is wrong with an attributes object; empty where nothing is."""
    if not isinstance(one, dict) or not any(one.get(name) for name in _IDS):
        return f"{', '.join(map(repr, _IDS[:-1]))} or 'phone' is required"
    for name, value in one.items():
        check = _CHECKS.get(name)
        if check is not None and value is not None and not check(value):
            return f"'{name}' has a value that is not valid"
        if name.startswith("$") or len(name) > 255:
            return "an attribute has a name that is not valid"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "Boolean (Automatically Detected)"
    return "Number" if isinstance(value, int | float) else "String"


def _error(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"message": message})


def ready() -> Ready:
    """A workspace with a subscription group."""
    fake = FakeBraze()
    fake.groups["group-1"] = {}
    audiences = {"membership": "lapsed_buyer", "subscription_group": "group-1"}

    def members(object: str, audience: str) -> set[str]:
        if object == "subscription_group":
            return {id for id, state in fake.groups[audience].items() if state == "subscribed"}
        found = [one for one in fake.profiles if object == "user" or one.get(audience) is True]
        return {one["external_id"] for one in found}

    return Ready(fake, lambda url: {"api_key": "key-test", "base_url": url}, audiences, members=members)
