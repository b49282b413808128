# docker build -t fivescore .                                    CPU, with the demo checkpoint
# docker build -t fivescore --build-arg UV_SYSTEM_PYTHON=1 \
#   --build-arg BASE=vllm/vllm-openai:v0.32.0 .                  GPU
ARG BASE=vllm/vllm-openai-cpu:v0.32.0
FROM ${BASE}
ARG UV_SYSTEM_PYTHON=0
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY service service
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The base's packages are the constraints: only what is missing is added, nothing of it is moved.
RUN export UV_SYSTEM_PYTHON \
 && uv pip freeze | grep '==' > base.txt \
 && uv pip install --no-cache -c base.txt '.[server]' \
 && fivescore serve --help > /dev/null \
 && rm -rf /build
RUN id -u vllm > /dev/null 2>&1 || useradd --uid 2000 --gid 0 --create-home vllm
WORKDIR /home/vllm
ENV HOME=/home/vllm USER=vllm LOGNAME=vllm FIVESCORE_HOST=0.0.0.0
USER 2000:0
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=900s --start-interval=5s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready')"]
ENTRYPOINT ["fivescore", "serve"]
