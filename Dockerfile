# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libclang-dev libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin sidestream && cp target/release/sidestream /sidestream

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libssl3 zlib1g ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/sidestream --create-home sidestream
COPY --from=build /sidestream /usr/local/bin/sidestream
USER 10001
ENV SIDESTREAM_HTTP=0.0.0.0:8088 \
    SIDESTREAM_STATE_DIR=/var/lib/sidestream/state
VOLUME /var/lib/sidestream/state
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD curl -fsS http://127.0.0.1:8088/healthz || exit 1
# SIGTERM commits, flushes and leaves; keep the grace period above `shutdown_timeout` (25 s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["sidestream"]
CMD ["run", "/etc/sidestream/topology.yaml"]
