# One image for workers, schedule and command line; the locked dependencies are a layer of their own.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
# The lock file is for x86-64; on other machines the ranges of pyproject.toml decide.
RUN if [ "$(uname -m)" = x86_64 ]; then pip install --require-hashes -r requirements.lock; fi
COPY pyproject.toml README.md LICENSE ./
COPY filter_service ./filter_service
COPY tasks ./tasks
COPY migrations ./migrations
RUN if [ "$(uname -m)" = x86_64 ]; then pip install --no-deps .; else pip install '.[s3]'; fi

FROM python:3.11-slim-bookworm
RUN useradd --system --create-home --uid 10001 service \
    && install --directory --owner service --mode 0700 /data /log /keys
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER service
WORKDIR /data
VOLUME /data /log /keys
CMD ["filter-service", "--help"]
