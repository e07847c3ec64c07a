# The one list of commands; .ci/run calls the same.
.PHONY: run test test-postgres lint types check format bench requirements

run:            ## the dashboard with a sandbox upstream
	uv run manage.py serve

test:           ## everything, on SQLite
	uv run pytest

test-postgres:  ## everything, on PostgreSQL
	DATABASE_URL=$${TEST_POSTGRES_URL:-postgres://postgres@127.0.0.1:5432/dashboard} uv run pytest

lint:           ## style, formats, templates, import contracts, pins
	uv run ruff check .
	uv run ruff format --check .
	uv run djade --check --target-version 6.0 $$(git ls-files 'templates/*.html')
	uv run djlint --lint --quiet templates
	uv run lint-imports
	uv run .ci/pins.py

types:          ## mypy, strict
	uv run mypy
	uv run manage.py makemigrations --check --dry-run

check: lint types test

format:
	uv run ruff check --fix .
	uv run ruff format .
	uv run djade --target-version 6.0 $$(git ls-files 'templates/*.html')

bench:          ## the figures of docs/performance.md
	uv run bench/main_job.py
	uv run bench/freshness.py
	uv run bench/workers.py
	uv run bench/viewers.py
	uv run bench/glass.py
	uv run bench/light.py
	uv run bench/audit.py
	uv run bench/usual.py
	uv run bench/paging.py

requirements:   ## the hashed export that deploy/ installs from
	uv export --quiet --no-dev --no-emit-project --no-header --format requirements-txt -o deploy/requirements.txt
