# The backend for a workstation that serves a group: on the CPU, as a user without rights.
#
#     docker build -t openscans-backend .
#     docker run --network host -e OPENSCANS_TOKEN=... -v openscans:/var/lib/openscans -v /data:/data:ro openscans-backend
#
# In the host's network, because the server answers only to addresses of the machine that it runs on.

FROM python:3.13-slim-bookworm AS build
# PyInstaller reads libraries with it. Its version does not matter, and old ones leave Debian's servers.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN ./setup.sh build && mv dist/openscans-backend-* /backend && mv /backend/openscans-backend-* /backend/openscans-backend

# The same Debian as above: the executable brings its own Python, but not the C library.
FROM debian:bookworm-slim
COPY --from=build /backend /opt/openscans
RUN useradd --system --uid 10001 openscans && install --directory --owner openscans --mode 700 /var/lib/openscans
USER 10001
ENV OPENSCANS_HOST=0.0.0.0 OPENSCANS_PORT=8000 OPENSCANS_HOME=/var/lib/openscans
VOLUME /var/lib/openscans
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$OPENSCANS_PORT && printf 'GET /api/health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && grep -q healthy <&3"]
ENTRYPOINT ["/opt/openscans/openscans-backend"]
