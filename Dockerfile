# The image of the service. Its layers build with the classic builder and with BuildKit alike.

# The manifests alone, with empty sources: what the next stage is cached by, so that dependencies are
# compiled again only when a manifest or the lock file changes.
FROM rust:1.95-bookworm AS manifests
WORKDIR /source
COPY . .
RUN mkdir /manifests \
    && find . \( -name Cargo.toml -o -name Cargo.lock \) -exec cp --parents -t /manifests {} + \
    && cargo metadata --offline --no-deps --format-version 1 \
        | grep -o '"src_path":"[^"]*"' | cut -d'"' -f4 | sort -u >/targets \
    && while read -r target; do \
        stub="/manifests/${target#"$PWD"/}" \
        && mkdir -p "$(dirname "$stub")" && echo 'fn main() {}' >"$stub" || exit 1; \
    done </targets

FROM rust:1.95-bookworm AS build
WORKDIR /source
# As what is downloaded: optimised as one piece, which serves up to a third more. Without what only a debugger reads.
ENV CARGO_PROFILE_DIST_DEBUG=false CARGO_PROFILE_DIST_STRIP=symbols
COPY --from=manifests /manifests .
RUN cargo build --profile dist --locked --package widgets
COPY . .
# The empty sources are newer than the real ones; cargo goes by that.
RUN find clients crates -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --package widgets \
    && install -d /image/data /image/usr/local/bin \
    && install target/dist/widgets /image/usr/local/bin/

# By name, not by digest: one digest is one day's security updates, and this image is built anew for each release. A
# build that must be the same again is given one: docker build --build-context debian:bookworm-slim=docker-image://…
FROM debian:bookworm-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="widgets" \
      org.opencontainers.image.description="Registers widgets and associates them port to port, durably, with the API of PostgREST" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
# The authorities that `widgets load https://…`, a database's certificate and `auth.jwks_url` are checked against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /image/usr/local/bin/widgets /usr/local/bin/widgets
# A number, so that Kubernetes can see that it is not root.
COPY --from=build --chown=10001:10001 /image/data /data
USER 10001:10001
WORKDIR /data
VOLUME /data
# Inside a container every address is the container's own: who may reach it is decided outside.
ENV WIDGETS_LISTEN=0.0.0.0:3000 WIDGETS_DATA_DIR=/data WIDGETS_LOG_FORMAT=json
EXPOSE 3000
# As the service was started: `docker run widgets serve --listen 0.0.0.0:8080` is asked on port 8080.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["widgets", "health", "--running"]
ENTRYPOINT ["widgets"]
CMD ["serve"]
