# The application in its own environment, installed from the same lock file as `make run`.
FROM python:3.11-slim-bookworm
WORKDIR /app
COPY requirements/run.txt requirements/run.txt
RUN pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY shoal shoal
COPY common common
COPY clients clients
COPY server server
COPY simulations simulations
RUN pip install --no-cache-dir --no-deps .
RUN useradd --create-home shoal && mkdir runs && chown shoal runs
USER shoal
ENTRYPOINT ["shoal"]
CMD ["run", "medical-thyroid", "--compare"]
