"""Finding connectors: lazily, with clear words for what is missing or broken, and each under contract."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sync.errors import ProjectError
from sync.sdk.registry import available, load
from sync.testing.contract import ConnectorContract

BROKEN = {
    "crooked": ("crooked_plugin:Nothing", "raise RuntimeError('needs libfoo')", "needs libfoo"),
    "absent": ("absent_plugin:Nothing", None, "absent_plugin"),
    "empty": ("empty_plugin:Nothing", "", "Nothing"),
    "odd": ("odd_plugin:thing", "thing = 7", "is not a Connector class"),
    "quits": ("quits_plugin:thing", "raise SystemExit(3)", "SystemExit"),
    "misnamed": ("misnamed_plugin:Webhook", "from connectors.webhook import Webhook", "it calls itself 'webhook'"),
}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with one broken connector of each kind, on the path."""
    info = tmp_path / "acme_plugins-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugins\nVersion: 2.1\n")
    lines = [f"{name} = {target}" for name, (target, _, _) in BROKEN.items()]
    (info / "entry_points.txt").write_text("[headgate.connectors]\n" + "\n".join(lines) + "\n")
    for target, code, _ in BROKEN.values():
        if code is not None:
            (tmp_path / f"{target.partition(':')[0]}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for target, _, _ in BROKEN.values():
        sys.modules.pop(target.partition(":")[0], None)


def test_the_connectors_of_this_distribution_are_found() -> None:
    found = available()

    assert {"webhook", "file", "hubspot"} <= set(found)
    assert found["webhook"].target == "connectors.webhook:Webhook"
    assert found["webhook"].distribution == "headgate"


@pytest.mark.parametrize("name", sorted(available()))
def test_each_installed_connector_loads(name: str) -> None:
    assert load(name).name == name


def test_listing_imports_no_connector() -> None:
    code = """
        import sys
        from sync.sdk.registry import available
        assert available()
        heavy = {"httpx", "pydantic", "duckdb", "pyarrow", "connectors.webhook"} & set(sys.modules)
        assert not heavy, heavy
    """

    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ProjectError, match="there is no connector 'webhok'") as raised:
        load("webhok")

    assert raised.value.code == "HG410"
    assert raised.value.fix == "Did you mean 'webhook'?"


def test_a_name_like_no_other_is_answered_with_what_there_is() -> None:
    with pytest.raises(ProjectError) as raised:
        load("zzz")

    assert "webhook" in raised.value.fix


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_plugin_is_reported_with_its_distribution(name: str) -> None:
    with pytest.raises(ProjectError) as raised:
        load(name)

    assert raised.value.code == "HG411"
    assert f"the connector '{name}' of acme-plugins 2.1 cannot be loaded" in raised.value.message
    assert BROKEN[name][2] in raised.value.message


@pytest.mark.usefixtures("plugins")
def test_broken_plugins_leave_the_others_alone() -> None:
    assert set(BROKEN) < set(available())
    assert load("webhook").title == "Webhook"


def _contracts() -> set[str]:
    """Names of the connectors that have a contract class in these tests."""
    modules = [_load(path) for path in sorted(Path(__file__).parent.glob("test_*.py")) if path != Path(__file__)]
    found = _heirs(ConnectorContract)
    assert modules  # classes live as long as their modules
    return {contract.connector.name for contract in found if hasattr(contract, "connector")}


def _load(path: Path) -> ModuleType | None:
    if "ConnectorContract" not in path.read_text():
        return None
    spec = importlib.util.spec_from_file_location(f"contract_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _heirs(contract: type[ConnectorContract]) -> set[type[ConnectorContract]]:
    direct = set(contract.__subclasses__())
    return direct.union(*(_heirs(one) for one in direct))


def test_every_installed_connector_has_a_contract() -> None:
    ours = {name for name, entry in available().items() if entry.distribution == "headgate"}

    assert ours <= _contracts()
