# The server in one image; docs/image.md says how to build and run it.
#
# BASE_IMAGE: any with apt and a Python of 3.11 or newer, from its packages or already in it.
# TORCH: cpu takes torch from TORCH_CPU_INDEX, cuda takes the CUDA build from pip's own index.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

# What both the build and the server need.
FROM ${BASE_IMAGE} AS python
RUN command -v python3 >/dev/null \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends python3 \
         && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb; }

FROM python AS build
RUN python3 -c 'import ensurepip' 2>/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3-venv; }
# pip lives in an environment of its own, so that the one that is copied has none.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/conveyor
WORKDIR /src

# The dependencies come before the source: an edit of the source installs none of them again.
# The secret is a pip.conf of whoever builds (a mirror, a proxy's certificate); it is optional and stays out of the image.
ARG TORCH=cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# Two names, because pip since 25.3 reads the second for what it builds a package with.
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_BUILD_CONSTRAINT=/src/constraints.txt
COPY pyproject.toml constraints.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip() { /opt/pip/bin/pip --python /opt/conveyor/bin/python install --no-cache-dir "$@"; } \
    && case "${TORCH}" in \
         # Nothing but torch comes from that index: the pinned versions of its dependencies are not all there.
         cpu) pip --no-deps --index-url "${TORCH_CPU_INDEX}" torch ;; \
         cuda) ;; \
         *) echo "TORCH is '${TORCH}'; accepted are cpu and cuda" >&2; exit 2 ;; \
       esac \
    && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
         >requirements.txt \
    && pip --requirement requirements.txt \
    # Headers, test programs and a protoc that torch brings along: a fifth of the image, and nothing here runs them.
    && cd /opt/conveyor/lib/python3*/site-packages/torch \
    && rm -rf include test \
    && find bin -type f ! -name torch_shm_manager -delete

# For the kernel alone; the image that comes out has no compiler, and what was compiled chooses by the CPU it runs on.
RUN command -v cc >/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev; }
COPY README.md hatch_build.py ./
COPY service service
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/conveyor/bin/python install --no-cache-dir --no-deps .

FROM python
# A number, so that Kubernetes can see that it is not root (runAsNonRoot); the user owns no file.
RUN groupadd --gid 10001 conveyor \
    && useradd --uid 10001 --gid conveyor --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin conveyor
COPY --from=build /opt/conveyor /opt/conveyor
COPY models /models
ENV PATH=/opt/conveyor/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CONVEYOR_HOST=0.0.0.0 \
    CONVEYOR_MODELS=/models
LABEL org.opencontainers.image.title="conveyor" \
      org.opencontainers.image.description="A server for LSTM models: sentiment, sequence tagging and forecasting over HTTP and gRPC."
USER 10001:10001
WORKDIR /
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# http.client and not urllib: a proxy in the container's environment must not be asked for our own address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
door = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('CONVEYOR_HTTP_PORT', '8000')), timeout=4); \
door.request('GET', '/health/ready'); \
sys.exit(door.getresponse().status != 200)"]
ENTRYPOINT ["conveyor"]
CMD ["serve"]
