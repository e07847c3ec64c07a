# docker build -t northflank-dashboard .
# docs/run/install.md says how to run it, deploy/try_image.py what was tried of it.

# For the same bytes each time, name a digest: --build-arg PYTHON_IMAGE=python:…@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
COPY deploy/requirements.txt deploy/
RUN python -m venv /venv \
    && /venv/bin/python -m pip install --no-cache-dir --only-binary :all: --require-hashes \
        -r deploy/requirements.txt \
    && /venv/bin/python -m pip uninstall --yes --quiet pip
COPY . .
# The same link as of the systemd units: what the process writes is in /data.
RUN /venv/bin/python -m compileall -q dashboard \
    && ln -s /data var

FROM ${PYTHON_IMAGE}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="Release flows" \
      org.opencontainers.image.description="A self-hosted dashboard for Northflank release flows" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN install -d -m 700 -o 10001 -g 10001 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
# TMPDIR: SQLite spills large sorts, and the root may be read-only.
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/data \
    LOG_FORMAT=json
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Of `serve`; switch it off for `sync`, which listens on no port.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["serve", "--host", "0.0.0.0"]
