# Stands in for chrislusf/seaweedfs: the same program out of its Python wheel. The real image is an Alpine.
FROM debian:bookworm-slim
COPY weed /usr/bin/weed
VOLUME /data
EXPOSE 8333
ENTRYPOINT ["weed"]
