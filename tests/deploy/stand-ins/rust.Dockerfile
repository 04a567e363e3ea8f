# Stands in for rust: Debian's C compiler and the toolchain of the machine that builds this image.
# The real image also has rustup and more of Debian's development packages.
FROM debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null \
    && rm -rf /var/lib/apt/lists/*
COPY certificates/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY bin /usr/local/cargo/bin
COPY lib /usr/local/cargo/lib
COPY libexec /usr/local/cargo/libexec
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
