# CPU, with the demo checkpoint:  docker build -t fivescore:cpu .
# NVIDIA GPU:                     docker build -t fivescore:gpu --build-arg BASE=vllm/vllm-openai:v0.32.0 .
# The tag is the vLLM that the tests run on. Add @sha256:... to BASE for a build that repeats exactly.
ARG BASE=vllm/vllm-openai-cpu:v0.32.0
FROM ${BASE}
ARG BASE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fivescore" \
      org.opencontainers.image.description="A reward-model service for RLHF trainers" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"

# The CPU image runs as root too, but lacks the user that the GPU image has. Group 0 may write what the
# user may, so that any uid of that group works, as OpenShift picks them.
USER 0
RUN if ! id -u vllm > /dev/null 2>&1; then useradd --uid 2000 --gid 0 --create-home vllm; fi \
 && mkdir -p /home/vllm/.cache/huggingface /home/vllm/.cache/vllm \
 && chown -R 2000:0 /home/vllm \
 && chmod -R g=u /home/vllm

WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY service service
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The base's packages are the constraints: what is missing is added and nothing is moved, which the
# last lines check. The CPU image has a virtual environment, the GPU image installs into the system.
RUN if [ -z "${VIRTUAL_ENV:-}" ]; then export UV_SYSTEM_PYTHON=1; fi; \
    uv pip freeze | grep '==' | LC_ALL=C sort > /tmp/base.txt; \
    uv pip install --no-cache --constraint /tmp/base.txt '.[server]'; \
    uv pip freeze | LC_ALL=C sort > /tmp/now.txt; \
    moved="$(LC_ALL=C comm -23 /tmp/base.txt /tmp/now.txt)"; \
    if [ -n "$moved" ]; then echo "the base's packages were moved: $moved" >&2; exit 1; fi; \
    rm -rf /build /tmp/base.txt /tmp/now.txt

WORKDIR /home/vllm
# torch asks for the user's name, which an arbitrary uid does not have.
ENV HOME=/home/vllm USER=vllm LOGNAME=vllm FIVESCORE_HOST=0.0.0.0 VLLM_NO_USAGE_STATS=1
# Can a user without a name and without rights run it?
USER 54321:0
RUN fivescore serve --help > /dev/null \
 && python3 -c 'import fivescore.http.app, getpass; getpass.getuser()' \
 && touch .cache/vllm/written && rm .cache/vllm/written
USER 2000:0
# Weights, and what vLLM compiles: without a volume every new container makes both again.
VOLUME ["/home/vllm/.cache/huggingface", "/home/vllm/.cache/vllm"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, since curl may be missing and urllib would ask a proxy that is set for downloads.
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --start-interval=5s --retries=3 \
  CMD ["python3", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('FIVESCORE_PORT') or 8000), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["fivescore", "serve"]
