# The images of TasteMatch. `docker build --target api .` is the HTTP process, `--target worker` the
# batch process; `--target seed` is the API image plus the sample data, for docker-compose.yml only.
#
# All hold the same code. They differ in what is installed beside it: each target installs its own
# lock file, and the API's has no numpy, so that the API fits a machine of 256 MB. Packages come
# before the code, so that a change of the code reuses their layer.

FROM python:3.11-slim AS base
# PYTHONPATH puts this code before any foreign package that is also called `worker` or `api`.
# Two malloc arenas instead of eight a core: threads that come and go keep less memory.
# Every listener binds IPv6 and IPv4, since private networks may speak either.
ENV MALLOC_ARENA_MAX=2 \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    TASTEMATCH_DATA_DIR=/data \
    TASTEMATCH_HOST=::
WORKDIR /app
RUN groupadd --gid 10001 tastematch \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tastematch \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data

FROM base AS api
COPY requirements/api.lock requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --requirement requirements/api.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY api api
COPY worker worker
COPY tastematch tastematch
# Compiled here, because the user below cannot write beside the sources; readable for that user
# whatever the umask of the clone was.
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --no-deps --no-build-isolation --config-settings editable_mode=compat --editable . \
    && python -m compileall -q shared api worker tastematch \
    && chmod -R a+rX /app
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/health' % os.environ.get('PORT', '8000'), timeout=2)"]
CMD ["tastematch", "serve"]

FROM base AS worker
COPY requirements/worker.lock requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --requirement requirements/worker.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY api api
COPY worker worker
COPY tastematch tastematch
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --no-deps --no-build-isolation --config-settings editable_mode=compat --editable . \
    && python -m compileall -q shared api worker tastematch \
    && chmod -R a+rX /app
# One thread of linear algebra: the product's own blocks set the parallelism, and each further
# thread would hold buffers of its own. The metrics listener also answers the health check.
ENV OPENBLAS_NUM_THREADS=1 \
    TASTEMATCH_METRICS_PORT=9090
USER 10001
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/health' % os.environ['TASTEMATCH_METRICS_PORT'], timeout=2)"]
CMD ["tastematch", "worker"]

FROM api AS seed
COPY --chown=10001:10001 data data
HEALTHCHECK NONE
CMD ["tastematch", "import", "data/entree"]
