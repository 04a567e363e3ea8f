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
# As what is downloaded (release/build): static, and optimised as one piece, which serves up to a third more. Without what only
# a debugger reads. The target is named, so that what runs while it is compiled is not made static as well.
ENV CARGO_PROFILE_DIST_DEBUG=false CARGO_PROFILE_DIST_STRIP=symbols
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=/source/modules.o"
COPY release/modules.c .
RUN cc -O2 -c modules.c && rustc -vV | sed -n 's/^host: //p' >/target
COPY --from=manifests /manifests .
RUN cargo build --profile dist --locked --package widgets --target "$(cat /target)"
COPY . .
# The empty sources are newer than the real ones; cargo goes by that.
RUN find clients crates -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --package widgets --target "$(cat /target)" \
    && install -D -t /image/usr/local/bin "target/$(cat /target)/dist/widgets"
# All else that the image has: a directory that its user may write to, the user's name, and the authorities that
# `widgets load https://…`, an archive's bucket and `auth.jwks_url` are checked against.
RUN install -d -o 10001 -g 10001 /image/data \
    && install -D -m 644 -t /image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && echo 'widgets:x:10001:10001::/data:' >/image/etc/passwd \
    && echo 'widgets:x:10001:' >/image/etc/group

# Nothing else is in it, no shell either: what it is asked to do, the program does itself.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="widgets" \
      org.opencontainers.image.description="Registers widgets and associates them port to port, durably, with the API of PostgREST" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image /
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
ENV PATH=/usr/local/bin
# Inside a container every address is the container's own: who may reach it is decided outside.
ENV WIDGETS_LISTEN=0.0.0.0:3000 WIDGETS_DATA_DIR=/data WIDGETS_LOG_FORMAT=json
EXPOSE 3000
# As the service was started: `docker run widgets serve --listen 0.0.0.0:8080` is asked on port 8080.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["widgets", "health", "--running"]
ENTRYPOINT ["widgets"]
CMD ["serve"]
