# What a developer does, one word each. `just` lists it.

_default:
    @just --list

# everything CI runs
ci:
    bash .ci/run

# the quick tests; arguments go to pytest
test *args:
    uv run --group dev pytest {{ args }}

# every test, the slow ones too
test-all:
    uv run --group dev pytest
    uv run --group dev pytest -n 0 -m slow

# ten thousand more histories of the commit protocol, a thousand more kills
night:
    uv run --group dev pytest -m endless

# format, and fix what ruff can fix
format:
    uv run --group dev ruff format .
    uv run --group dev ruff check --fix .

# format, lint, types and import rules, without changing anything
lint:
    uv run --group dev ruff format --check .
    uv run --group dev ruff check .
    uv run --group dev mypy sync connectors
    uv run --group dev lint-imports

# ratios against the floor, measured in one run
bench *args:
    uv run --group dev python -m benchmarks {{ args }}

# docs/connectors.md: what each connector takes, and what its tests found
connectors:
    uv run --group dev python -m sync.testing.table --figures

# docs/reference/api.openapi.json: what the API is
api:
    uv run --group dev python -m sync.web.describe > docs/reference/api.openapi.json

# see it work
demo:
    uv run headgate demo

# the wheel, into dist/
wheel:
    uv build --wheel

# take newer versions, then write down what was tested
upgrade:
    uv run --no-sync python .ci/constraints.py --forget
    uv sync --upgrade --group dev
    uv run --group dev python .ci/constraints.py
