# The image of the service. It builds with the classic builder and with BuildKit.

# The manifests with empty sources. The next stage is cached by these, so that dependencies are recompiled only when a
# manifest or the lock file changes.
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
# Like the downloads (release/build), the program is static and optimised across all crates, which serves up to a third more
# requests; but it has no debug information and no symbols. Naming the target keeps build scripts and procedural macros from
# being linked statically as well.
ENV CARGO_PROFILE_DIST_DEBUG=false CARGO_PROFILE_DIST_STRIP=symbols
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=/source/modules.o"
COPY release/modules.c .
RUN cc -O2 -c modules.c && rustc -vV | sed -n 's/^host: //p' >/target
COPY --from=manifests /manifests .
RUN cargo build --profile dist --locked --package widgets --target "$(cat /target)"
COPY . .
# The empty sources are newer than the real ones, and cargo decides by modification times.
RUN find clients crates -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --package widgets --target "$(cat /target)" \
    && install -D -t /image/usr/local/bin "target/$(cat /target)/dist/widgets"
# The rest of the image: a directory that its user may write to, the user's name, and the certificate authorities that
# verify `widgets load https://…`, an archive's bucket and `auth.jwks_url`.
RUN install -d -o 10001 -g 10001 /image/data \
    && install -D -m 644 -t /image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && echo 'widgets:x:10001:10001::/data:' >/image/etc/passwd \
    && echo 'widgets:x:10001:' >/image/etc/group

# The image contains nothing else, not even a shell: the program does everything itself.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="widgets" \
      org.opencontainers.image.description="Registers widgets and associates them port to port, durably, with the API of PostgREST" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image /
# A number, so that Kubernetes can verify that the user is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
ENV PATH=/usr/local/bin
# Inside a container, every address belongs to the container; whoever runs it decides who can reach it.
ENV WIDGETS_LISTEN=0.0.0.0:3000 WIDGETS_DATA_DIR=/data WIDGETS_LOG_FORMAT=json
EXPOSE 3000
# --running asks where the service really listens: port 8080 after `docker run widgets serve --listen 0.0.0.0:8080`.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["widgets", "health", "--running"]
ENTRYPOINT ["widgets"]
CMD ["serve"]
