# The project, installed in its locked environment. A job's --working-dir comes before the installed code.
#
#   docker build -t deepfake-face-detector .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/models:/srv/models:ro" --shm-size 1g deepfake-face-detector
#
# models/ must contain a promoted model (jobs.promote): the container only reads it.
#
# For Kubernetes push it and name it in docs/kubernetes/. GPUs need nothing more: torch's wheels bring CUDA, the
# machine its driver.

FROM ghcr.io/astral-sh/uv:0.13.9 AS uv

FROM python:3.11.14-slim-bookworm AS environment
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/venv
WORKDIR /srv/detector
COPY pyproject.toml uv.lock ./
# The dependencies are a layer by themselves, which a change of the code leaves in Docker's cache.
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-default-groups --no-install-project
COPY README.md ./
COPY detector_core ./detector_core
COPY jobs ./jobs
COPY serve_app ./serve_app
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-default-groups --no-editable

FROM python:3.11.14-slim-bookworm
# wget is what KubeRay's own probes call; libgl and libglib are OpenCV's, which albumentations brings.
# Debian keeps one version of a package, so pinning one breaks later builds.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray
COPY --from=uv /uv /usr/local/bin/uv
COPY --from=environment /opt/venv /opt/venv
# The launcher of HAProxy for a cluster (docs/operate.md#haproxy-on-a-cluster); jobs.serve writes its own.
RUN /opt/venv/bin/python -m serve_app.front /opt/front > /dev/null && chown ray /opt/front
WORKDIR /srv/detector
COPY pyproject.toml uv.lock ./
# Docker passes the proxy of its own settings on to containers: the probes must not go through it.
ENV PATH=/opt/venv/bin:$PATH \
    UV_PROJECT_ENVIRONMENT=/opt/venv \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.proxy:middlewares \
    RAY_USAGE_STATS_ENABLED=0 \
    no_proxy=localhost,127.0.0.1,::1
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=90s CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8000/healthz"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "jobs.serve", "--models", "/srv/models", "--host", "0.0.0.0"]
