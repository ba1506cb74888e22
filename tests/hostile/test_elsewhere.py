"""Where requests go: never to another host, over TLS only where the certificate holds, and with nothing of an
earlier answer."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sync.sdk.nouns import Op
from tests.hostile.conftest import STANDS
from tests.hostile.lies import Told
from tests.hostile.server import Liar, Peer
from tests.hostile.stage import CANARY, SIZE, Scenario, Stage
from tests.hostile.stands import SECRET, WebhookRecord

Make = Callable[..., Stage]


_REDIRECTS = (301, 302, 303, 307, 308)


def _redirects() -> list[Any]:
    """Each of them to the webhook; to every other object one, in turn."""
    return [
        pytest.param(stand, status, id=f"{name}, {status}")
        for number, (name, stand) in enumerate(STANDS.items())
        for status in (_REDIRECTS if stand.connector == "webhook" else [_REDIRECTS[number % 5]])
    ]


@pytest.mark.parametrize(("stand", "status"), _redirects())
def test_a_host_that_a_redirect_points_to_hears_nothing(staged: Make, stand: WebhookRecord, status: int) -> None:
    elsewhere = Liar(lambda request: httpx.Response(200, json={}))
    with elsewhere.serving():
        there = f"{elsewhere.url}/away?from=here"
        lie = Told("points away", lambda peer: peer.answer(status, "{}", f"Location: {there}"))
        stage = staged(stand, Scenario.of(Op.ADD, SIZE), op=Op.ADD, lies=[lie])

        report = stage.runs()

    assert elsewhere.connections == 0
    assert (report.status, report.applied, report.unknown) == ("completed_with_errors", 0, SIZE)


@pytest.mark.parametrize("stand", STANDS.values(), ids=list(STANDS))
def test_cookies_are_sent_neither_in_the_same_run_nor_in_the_next(staged: Make, stand: WebhookRecord) -> None:
    def bake(peer: Peer) -> None:
        peer.be_honest("Set-Cookie: session=canary-cookie; Path=/; Max-Age=99999")

    lies = [Told("bakes", bake)] * 2
    stage = staged(stand, Scenario.of(Op.ADD, SIZE * 2), op=Op.ADD, lies=lies)
    assert stage.runs().status == "completed"
    stage.cohort(range(6))
    stage.runs()

    assert len(stage.liar.heard) >= 2
    assert b"cookie" not in b"".join(heard.raw for heard in stage.liar.heard).lower()


# --- TLS ------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of this test alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headgate test authority")])
        today = datetime.now(UTC)
        self._days = (today - timedelta(days=30), today + timedelta(days=30))
        own = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0), self._days)
        self.file = folder / "authority.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def context(self, kind: str) -> ssl.SSLContext:
        """A server's side, with a certificate that is `good`, `expired`, for `another host`, or `self-signed`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, kind)])
        host = (
            x509.DNSName("elsewhere.example")
            if kind == "another host"
            else x509.IPAddress(ip_address("127.0.0.1"))
        )
        names = x509.SubjectAlternativeName([host])
        begin, end = self._days
        days = (begin, begin + timedelta(days=1)) if kind == "expired" else (begin, end)
        own = kind == "self-signed"
        made = self._signed(name, key, names, days, issuer=name if own else None, by=key if own else None)
        file = self._folder / f"{kind.replace(' ', '-')}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
        days: tuple[datetime, datetime],
        issuer: x509.Name | None = None,
        by: ec.EllipticCurvePrivateKey | None = None,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer or self._name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(days[0]).not_valid_after(days[1])
        return builder.add_extension(extension, critical=False).sign(by or self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@contextmanager
def _over_tls(stage: Stage, context: ssl.SSLContext) -> Iterator[Liar]:
    """The stage's destination, from now on over TLS."""
    liar = Liar(stage.stand.app, tls=context)
    with liar.serving():
        stage.liar = liar
        yield liar


def _add(staged: Make) -> Stage:
    return staged(STANDS["webhook record"], Scenario.of(Op.ADD, SIZE), op=Op.ADD)


@pytest.mark.parametrize("kind", ["expired", "another host", "self-signed"])
def test_a_certificate_that_does_not_hold_is_sent_nothing(
    staged: Make, authority: Authority, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    for name in ("PYTHONHTTPSVERIFY", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_NO_VERIFY"):
        monkeypatch.setenv(name, "0" if name == "PYTHONHTTPSVERIFY" else "")
    stage = _add(staged)
    with _over_tls(stage, authority.context(kind)) as liar:
        report = stage.runs()

        assert (report.status, report.code, report.applied) == ("failed", "HG403", 0)
        assert "certificate" in report.error
        assert not liar.heard
    assert CANARY not in "\n".join(stage.said) + stage.written()
    assert SECRET not in "\n".join(stage.said) + stage.written()


def test_an_authority_that_nobody_trusts_is_sent_nothing(staged: Make, authority: Authority) -> None:
    stage = _add(staged)
    with _over_tls(stage, authority.context("good")) as liar:
        report = stage.runs()

        assert (report.status, report.code) == ("failed", "HG403")
        assert not liar.heard


def test_an_authority_of_the_company_can_be_trusted(
    staged: Make, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    stage = _add(staged)
    with _over_tls(stage, authority.context("good")):
        assert stage.runs().status == "completed"

    assert stage.stand.people() == stage.wanted
