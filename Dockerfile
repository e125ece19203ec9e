# Callmeter in a container: `docker build -t callmeter .`; docs/admins.md says how to run it.

# First stage: the packages, exactly those of requirements.txt. Wheels alone, so that nothing is compiled or run.
FROM python:3.13-slim AS packages
COPY requirements.txt /
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes --no-deps --only-binary=:all: -r /requirements.txt \
 && /venv/bin/pip uninstall --yes --quiet pip

# Second stage: what runs. Nothing is fetched from here on, neither now nor when it starts.
FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CALLMETER_HOST=0.0.0.0 \
    CALLMETER_ADMIN_HOST=0.0.0.0 \
    CALLMETER_POLICIES=/policies \
    CALLMETER_DATA=/data

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin callmeter \
 && install -d -m 0700 -o callmeter -g callmeter /data \
 && printf '#!/bin/sh\nexec python -m proxy "$@"\n' > /usr/local/bin/callmeter \
 && chmod 0755 /usr/local/bin/callmeter

COPY --from=packages /venv /venv
COPY proxy /app/proxy
COPY policies /policies
COPY LICENSE /app/
RUN python -m compileall -q /app/proxy

USER 10001
WORKDIR /app
VOLUME /data
# 8080 for agents; 8081 for admins, to be published to them alone.
EXPOSE 8080 8081

# The process that is asked is the one that this container runs: with CALLMETER_ONLY=bookkeeper it has no data port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import http.client, os, sys; \
alone = os.environ.get('CALLMETER_ONLY') == 'bookkeeper'; \
port = os.environ.get('CALLMETER_ADMIN_PORT', '8081') if alone else os.environ.get('CALLMETER_PORT', '8080'); \
server = http.client.HTTPConnection('127.0.0.1', int(port), timeout=4); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]

ENTRYPOINT ["callmeter"]
CMD ["serve"]
