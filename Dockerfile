# syntax=docker/dockerfile:1
# The service, for a CPU. For a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
# Run folders are mounted, read-only, at /runs; uploads and the review queue live under /data.

ARG PYTHON=3.12.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# First what changes seldom: PyTorch is most of the image.
RUN python -m venv /opt/shelfwise \
    && /opt/shelfwise/bin/pip install --index-url "${TORCH_INDEX}" "torch==${TORCH}"
WORKDIR /build
COPY pyproject.toml README.md ./
COPY src ./src
RUN /opt/shelfwise/bin/pip install ".[serve,postgres]"

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="Shelfwise" \
      org.opencontainers.image.description="From product names to inventory types, over HTTP"
RUN groupadd --gid 10001 shelfwise \
    && useradd --uid 10001 --gid shelfwise --no-create-home --shell /usr/sbin/nologin shelfwise \
    && install --directory --owner=shelfwise --group=shelfwise /data
COPY --from=build /opt/shelfwise /opt/shelfwise
ENV PATH=/opt/shelfwise/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["shelfwise", "serve"]
CMD ["/runs/current", "--host", "0.0.0.0", "--port", "8000", "--data", "/data/uploads"]
