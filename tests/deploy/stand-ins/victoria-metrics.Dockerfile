# Stands in for victoriametrics/victoria-metrics: Debian's package.
FROM debian:forky-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends victoria-metrics >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s "$(command -v victoria-metrics)" /victoria-metrics-prod
EXPOSE 8428
ENTRYPOINT ["/victoria-metrics-prod"]
