# qexp on a CPU. The folder of results, of rows and of the hub's cache come from outside:
#
#   docker build -t qexp .
#   docker run --rm -v "$PWD/outputs:/work/outputs" -v "$PWD/data:/data:ro" -e QEXP_DATA=/data qexp task=mrpc quant=w8a8
FROM python:3.12-slim

# The C kernels of fake quantization are compiled at first use.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# A CPU build first: pip would take one with gigabytes of CUDA otherwise.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY qexp ./qexp
COPY conf ./conf
COPY sweeps ./sweeps
RUN pip install --no-cache-dir ".[openvino,cluster]" && rm -rf /src/*

# Not root, so that results belong to whoever runs it: docker run --user "$(id -u):$(id -g)" …
RUN useradd --create-home qexp && mkdir -p /work && chown qexp /work
USER qexp
WORKDIR /work
# Results, and what was downloaded or compiled, outlive the container.
ENV QEXP_OUTPUTS=/work/outputs HF_HOME=/work/outputs/hub XDG_CACHE_HOME=/work/outputs/cache
ENTRYPOINT ["qexp"]
CMD ["--help"]
