# One image for every role: `sluice serve --role all`, `controller` or `node`.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/sluice
COPY constraints.txt ./
RUN /opt/sluice/bin/pip install --no-cache-dir -c constraints.txt setuptools
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY csi_driver csi_driver
COPY qos qos
# Wheels only: there is no compiler here, and there shall be none.
RUN /opt/sluice/bin/pip install --no-cache-dir --only-binary=:all: --no-build-isolation -c constraints.txt . \
    && /opt/sluice/bin/pip uninstall --yes setuptools pip

FROM python:3.13-slim
# The programs that the driver runs: mkfs, fsck and growfs of the file systems it makes. All else it asks the kernel itself.
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends e2fsprogs xfsprogs \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/sluice /opt/sluice
ENV PATH=/opt/sluice/bin:$PATH \
    PYTHONUNBUFFERED=1
# Root: it mounts, and writes to the cgroups of the node.
ENTRYPOINT ["sluice"]
CMD ["serve", "--log-format", "json"]
