# The image of Darkroom: Debian's Python, the locked dependencies and the two packages. Nothing that builds or tests
# reaches the last stage.
#
# Run it with a read-only root and no capabilities; /data is all it writes to:
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 75 \
#     -v darkroom:/data -p 8080:8080 -e DARKROOM_KEYS=… -e DARKROOM_TOKENS=… darkroom

FROM debian:trixie-slim AS python
# Debian's versions are not pinned: a security fix must arrive with the next build, and the archive drops old versions.
# ca-certificates is what the object store's client verifies S3 against.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*


FROM python AS dependencies
# pip and the build backends come from Debian, signed, and stay in this stage: the environment itself gets no pip.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils python3-hatchling python3-pip python3-setuptools \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /build/
# The time that is written into wheels built here, 1980 being the first that zip knows: the same lock gives the same bytes.
ENV SOURCE_DATE_EPOCH=315532800
# Every file is checked against its hash. Only pyvips is published as source; with no libvips to build against it is plain
# Python, and the library itself comes with pyvips-binary.
RUN python3 -m pip wheel \
        --no-build-isolation --no-cache-dir --no-deps --only-binary :all: --no-binary pyvips \
        --require-hashes --requirement /build/requirements.lock --wheel-dir /build/wheels
# Of the wheel imagecodecs only libjxl and the libraries that it loads are used, and NumPy not at all: the rest would take
# 150 MB. `__init__.py` shows where the libraries are; nothing imports it. The licenses stay. Litestar uses Faker, by way of
# polyfactory, only to invent examples for its API description, and the page of the API uses two files of Swagger UI: 36 MB
# less. uvloop, PyYAML and multidict come with the symbols of a debugger: 18 MB less. Libraries that auditwheel has moved
# (*.libs) are not stripped: strip(1) may damage what patchelf has rewritten.
# Bytecode makes the start four times as fast, and a read-only root could not keep it later. `unchecked-hash` leaves time
# stamps out of it.
RUN python3 -m venv --without-pip /opt/darkroom \
    && python3 -m pip --python /opt/darkroom/bin/python install \
        --no-cache-dir --no-compile --no-deps --no-index /build/wheels/*.whl \
    && rm -rf /opt/darkroom/lib/python3*/site-packages/numpy* \
        /opt/darkroom/lib/python3*/site-packages/[Ff]aker* \
        /opt/darkroom/lib/python3*/site-packages/polyfactory* \
    && find /opt/darkroom/lib/python3*/site-packages/swagger_ui_bundle/vendor -type f \
        ! -name swagger-ui.css ! -name swagger-ui-bundle.js -delete \
    && strip --strip-unneeded \
        /opt/darkroom/lib/python3*/site-packages/multidict/*.so \
        /opt/darkroom/lib/python3*/site-packages/uvloop/*.so \
        /opt/darkroom/lib/python3*/site-packages/yaml/*.so \
    && find /opt/darkroom/lib/python3*/site-packages/imagecodecs -type f ! -name __init__.py ! -path '*/licenses/*' -delete \
    && find /opt/darkroom/lib/python3*/site-packages/imagecodecs.libs -type f \
        ! -name 'libbrotli*' ! -name 'liblcms2*' ! -name 'libjxl-*' ! -name 'libjxl_cms*' -delete \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/darkroom/lib


FROM dependencies AS project
COPY pyproject.toml README.md LICENSE /build/
COPY docs/*.md /build/docs/
COPY edge /build/edge
COPY service /build/service
# Installed beside the environment, under /staged, so that a change of code is a layer of its own and a small one.
RUN python3 -m pip wheel \
        --check-build-dependencies --no-build-isolation --no-cache-dir --no-deps --no-index --wheel-dir /build/dist /build \
    && python3 -m pip --python /opt/darkroom/bin/python install \
        --no-cache-dir --no-compile --no-deps --no-index --no-warn-script-location --root /staged /build/dist/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /staged /staged/opt/darkroom/lib


FROM python
# A number, known beforehand, is what a volume can be given to and what `runAsNonRoot` can check.
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin darkroom \
    && install --directory --owner=darkroom --group=darkroom --mode=0750 /data
COPY --from=dependencies /opt/darkroom /opt/darkroom
COPY --from=project /staged/opt/darkroom /opt/darkroom

# MALLOC_ARENA_MAX: glibc's arenas grow with every thread that renders; two keep a Machine at 75 MB instead of 120.
ENV PATH=/opt/darkroom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    DARKROOM_HOST=0.0.0.0 \
    DARKROOM_PORT=8080 \
    DARKROOM_DATA=/data

USER 10001:10001
WORKDIR /data
# Declared, so that even a run without `-v` has a writable, owned place under a read-only root. Fly ignores it.
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Ready, not only alive: what waits for a healthy container wants to be served. No curl in the image, and -I -S start
# Python without reading the environment's packages.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/bin/python3", "-I", "-S", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['DARKROOM_PORT']), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]

CMD ["darkroom", "serve"]
