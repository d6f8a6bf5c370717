# pgflume as a container image: `docker build -t pgflume .` or `make image`.
#
# The base images are arguments, so that it can be built on others (a mirror, a newer Debian).
# Both must be of the same Debian release, because the program is linked to that release's libc.
ARG RUST_IMAGE=rust:1-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# Line tables stay out of the image; symbol names stay in, for backtraces.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# Dependencies and their object files are kept in the builder's cache, so that a rebuild compiles
# this crate alone. All of them are fetched first: the build script reads Cargo's metadata offline.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo fetch --locked \
 && cargo build --release --locked --offline \
 && cp target/release/pgflume /usr/local/bin/pgflume

FROM ${RUNTIME_IMAGE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/bin/pgflume /usr/local/bin/
# What is replicated: mount your own over /pgflume/schema.json, or set SCHEMA_FILE.
WORKDIR /pgflume
COPY schema.json LICENSE-MIT LICENSE-APACHE ./
# For a replica that is a file, LIBSQL_URL=file:/data/replica.db: mount a volume here.
RUN install -d -o 10001 -g 10001 /data
# A number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
ENV HOST=0.0.0.0 PORT=3000
EXPOSE 3000
# bash speaks TCP, so that the image needs no HTTP client.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/$HOST/$PORT && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["pgflume"]
CMD ["serve"]
