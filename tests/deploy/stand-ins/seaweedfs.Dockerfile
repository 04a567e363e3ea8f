# Stands in for chrislusf/seaweedfs: the same program out of its Python wheel. The real image is an Alpine.
FROM debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends wget >/dev/null \
    && rm -rf /var/lib/apt/lists/*
COPY weed /usr/bin/weed
VOLUME /data
EXPOSE 8333
ENTRYPOINT ["weed"]
