# Stands in for nginx/nginx-prometheus-exporter: Debian's package.
FROM debian:forky-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends prometheus-nginx-exporter >/dev/null \
    && rm -rf /var/lib/apt/lists/*
USER nobody
EXPOSE 9113
ENTRYPOINT ["/usr/bin/prometheus-nginx-exporter"]
