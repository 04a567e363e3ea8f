# Stands in for chrislusf/seaweedfs: the same program from its Python wheel. The real image is based on Alpine.
FROM debian:bookworm-slim
COPY weed /usr/bin/weed
VOLUME /data
EXPOSE 8333
ENTRYPOINT ["weed"]
