# Stands in for prometheuscommunity/postgres-exporter: Debian's package.
FROM debian:forky-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends prometheus-postgres-exporter >/dev/null \
    && rm -rf /var/lib/apt/lists/*
USER nobody
EXPOSE 9187
ENTRYPOINT ["/usr/bin/prometheus-postgres-exporter"]
