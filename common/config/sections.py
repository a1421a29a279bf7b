"""The typed, frozen sections of a scenario; docs/config.md is generated from this file.

The checks here need one section only. `simulations/checks/scenario.py` checks names of data sources,
models and strategies, and everything that needs the data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

OPTIMIZERS = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion",
    "nadam", "rmsprop", "sgd",
)  # fmt: skip
METRICS = ("accuracy", "auc", "f1", "loss", "mae", "mse")
# Of each task, the most informative first.
TASK_METRICS = {
    "binary": ("auc", "f1", "accuracy", "loss"),
    "multiclass": ("accuracy", "f1", "loss"),
    "regression": ("mae", "mse", "loss"),
}
HIGHER_IS_BETTER = {"accuracy": True, "auc": True, "f1": True} | dict.fromkeys(("loss", "mae", "mse"), False)

Arguments = dict[str, Any]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the rows come from and what to predict."""

    source: str = Field(
        description="A built-in data set (see `shoal data --list`), the format of your own files "
        "(csv, parquet, npz, text, images), or package.module:function."
    )
    path: str | None = Field(
        None, description="File or folder of your own data, relative to the scenario file."
    )
    client_column: str | None = Field(
        None, description="Column that holds the site of each row; never used as an input."
    )
    label: str | None = Field(None, description="Column to predict.")
    positive: str | None = Field(
        None, description="Makes the task binary: this value of the label against all others."
    )
    task: Literal["auto", "binary", "multiclass", "regression"] = Field(
        "auto", description="Type of the learning task; auto infers it from the labels."
    )
    include: tuple[str, ...] = Field((), description="Input columns; empty means all other columns.")
    exclude: tuple[str, ...] = Field((), description="Columns that are not inputs.")
    text_column: str | None = Field(None, description="Column of text to use as the input.")
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Fraction of each client's rows held out for the final test."
    )
    validation_fraction: float = Field(
        0.1,
        ge=0,
        lt=0.9,
        description="Fraction of each client's rows used to select the best round; 0 keeps the last round.",
    )
    args: Arguments = Field(
        default_factory=dict, description="Arguments of the data source; see its page in docs/data."
    )

    @model_validator(mode="after")
    def _splits_leave_rows(self) -> DataConfig:
        held_out = self.test_fraction + self.validation_fraction
        if held_out >= 0.95:
            raise ValueError(
                f"test_fraction + validation_fraction is {held_out:g}, which leaves too little to "
                "train on: keep the sum below 0.95"
            )
        return self


class PreprocessingConfig(Section):
    """How inputs are prepared; it is fitted on aggregate statistics of the clients, never on their rows."""

    min_sites: int = Field(
        2,
        ge=1,
        description="Clients that must report a category or token for it to be kept; if fewer clients than "
        "this answer, no statistics are used at all.",
    )
    min_count: int = Field(
        5,
        ge=1,
        description="Rows of a client that a category, token or statistic must be based on before the client "
        "reports it.",
    )
    max_clients: int = Field(
        10_000,
        ge=1,
        description="Maximum number of clients asked for statistics; if there are more, a random sample of "
        "this size.",
    )
    impute: Literal["mean", "median", "zero"] = Field(
        "median", description="Value that replaces a missing number."
    )
    missing_indicator: bool = Field(True, description="Add an input that is 1 where a number is missing.")
    scale: Literal["standard", "minmax", "none"] = Field("standard", description="How numbers are scaled.")
    max_categories: int = Field(
        64, ge=1, le=10_000, description="Maximum number of one-hot inputs of one categorical column."
    )
    vocabulary: int = Field(
        10_000, ge=3, description="Maximum size of the vocabulary, including padding and unknown (text)."
    )
    tokens: int = Field(40, ge=1, description="Length in tokens to which a row is cut or padded (text).")


class PartitionConfig(Section):
    """How rows are divided among clients."""

    scheme: Literal["natural", "iid", "dirichlet", "shards", "quantity", "size"] = Field(
        "natural", description="How to divide the rows; natural uses the sites in the data."
    )
    clients: int | None = Field(
        None, ge=1, description="Number of clients; natural splits sites until it reaches this number."
    )
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration: smaller means more label skew.")
    shards_per_client: int = Field(2, ge=1, description="Label-sorted shards per client (scheme shards).")
    skew: Literal["linear", "exponential", "square"] = Field(
        "linear", description="How client sizes grow from the first to the last (scheme quantity)."
    )
    max_rows: int | None = Field(
        None, ge=1, description="Maximum number of rows per client (scheme size splits larger sites)."
    )
    min_rows: int = Field(
        10, ge=2, description="Minimum number of rows per client; smaller clients are left out, and listed."
    )

    @model_validator(mode="after")
    def _scheme_has_its_keys(self) -> PartitionConfig:
        if self.scheme in ("iid", "dirichlet", "shards", "quantity") and self.clients is None:
            raise ValueError(f'scheme "{self.scheme}" needs clients = <number>')
        if self.scheme == "size" and self.max_rows is None:
            raise ValueError('scheme "size" needs max_rows = <number>')
        return self


class ModelConfig(Section):
    """The Keras model that all clients train."""

    name: str = Field(
        description="mlp, logistic, cnn, lstm-text, pooled-text, gru-sequence, linear, or "
        "package.module:function with (input_spec, num_classes) -> keras.Model."
    )
    args: Arguments = Field(default_factory=dict, description="Arguments of the model.")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="Keras dtype policy. The mixed policies compute in 16 bits and keep weights in 32, which "
        "is faster on a GPU.",
    )
    aggregate_statistics: Literal["mean", "local"] = Field(
        "mean",
        description="Moving averages of batch norm: mean averages them over the clients like weights; with "
        "local each client keeps its own, and the exported model has those of the initial one.",
    )


class EarlyStoppingConfig(Section):
    """When to stop before the last round."""

    patience: int = Field(
        0, ge=0, description="Evaluations without improvement before the run stops; 0 never stops early."
    )
    min_delta: float = Field(0.0, ge=0, description="Smallest change that counts as an improvement.")


class TrainingConfig(Section):
    """How each client trains, and for how many rounds."""

    rounds: int = Field(20, ge=1, description="Number of federated rounds.")
    local_epochs: int = Field(1, ge=1, description="Passes over a client's rows per round.")
    local_steps: int | None = Field(
        None, ge=1, description="Optimisation steps per round, instead of local_epochs."
    )
    batch_size: int = Field(32, ge=1, description="Rows per optimisation step.")
    optimizer: Literal[OPTIMIZERS] = Field("sgd", description="Keras optimizer of the clients.")  # type: ignore[valid-type]
    learning_rate: float = Field(0.1, gt=0, le=1e9, description="Learning rate of the clients' optimizer.")
    optimizer_args: Arguments = Field(
        default_factory=dict, description="More arguments of the optimizer, e.g. momentum."
    )
    schedule: Literal["constant", "cosine", "exponential", "step"] = Field(
        "constant", description="How the learning rate decreases over rounds."
    )
    decay: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Decay factor per round (exponential), per step (step), or at the last round (cosine).",
    )
    decay_rounds: int = Field(10, ge=1, description="Rounds per step (schedule step).")
    loss: str = Field(
        "auto",
        description="Name of a Keras loss, or package.module:name of your own; auto selects the usual one.",
    )
    loss_args: Arguments = Field(default_factory=dict, description="Arguments of the loss.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced weights each class by the inverse of its count over all clients."
    )
    metrics: tuple[Literal[METRICS], ...] = Field(  # type: ignore[valid-type]
        (), description="Metrics to report; empty means the usual ones for the task."
    )
    monitor: Literal[(*METRICS, "auto")] = Field(  # type: ignore[valid-type]
        "auto", description="Metric used to select the best round and for early stopping."
    )
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()


class UpdateConfig(Section):
    """What each client does to its update before sending it, in this order."""

    clip_norm: float | None = Field(
        None, gt=0, description="Maximum L2 norm of a client's whole update; a larger update is scaled down."
    )
    noise_stddev: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of the Gaussian noise added to every value of an update. On its own "
        "it does not guarantee differential privacy; use [privacy].",
    )
    compress: Literal["none", "float16", "int8", "topk"] = Field(
        "none",
        description="How an update is compressed: float16 rounds each value to 2 bytes; int8 rounds each to "
        "1 byte, stochastically and without bias; topk sends only the largest values.",
    )
    top_share: float = Field(
        0.01, gt=0, le=1, description="Share of an update's values that topk sends, 8 bytes each."
    )
    error_feedback: bool = Field(
        True, description="Whether each client adds what topk left out of its update to its next one."
    )


class PrivacyConfig(Section):
    """Differential privacy: what the guarantee protects, and the noise behind it (docs/privacy.md)."""

    unit: Literal["none", "client", "local", "record"] = Field(
        "none",
        description="What the guarantee protects. client: all data of one client, with noise added at the "
        "server. local: the same, with noise added at the client, so also against the server. record: one "
        "row, with noise in each step of local training (DP-SGD).",
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        description="Privacy budget of all rounds together. The noise is calculated from it, unless "
        "noise_multiplier is set too.",
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="The delta of (epsilon, delta): keep it well below 1 / number of rows."
    )
    noise_multiplier: float | None = Field(
        None, gt=0, description="Standard deviation of the noise, as a multiple of clip_norm."
    )
    clip_norm: float = Field(
        1.0,
        gt=0,
        description="Maximum L2 norm of a client's update (client, local) or of a row's gradient (record).",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="adaptive moves clip_norm to a quantile of the updates' norms (unit client)."
    )
    target_quantile: float = Field(
        0.5, gt=0, lt=1, description="Fraction of updates that adaptive clipping leaves unclipped."
    )
    weights: Literal["uniform", "bounded"] = Field(
        "uniform",
        description="Weight of a client in the mean (unit client): uniform, or proportional to its rows up "
        "to full_weight_rows.",
    )
    full_weight_rows: int = Field(
        100, ge=1, description="Training rows at which a client reaches full weight (weights bounded)."
    )
    accountant: Literal["rdp", "pld"] = Field(
        "rdp",
        description="How epsilon is accounted: Rényi divergences (rdp), or privacy loss distributions (pld), "
        "which are tighter and slower.",
    )
    statistics_epsilon: float | None = Field(
        None,
        gt=0,
        description="Part of the budget reserved for the preprocessing statistics; if unset, they get no "
        "noise, and the report says so.",
    )
    microbatch: int = Field(
        256,
        ge=1,
        description="Rows whose gradients are in memory at once (unit record); affects speed, not results.",
    )


class SecureConfig(Section):
    """Secure aggregation: the server sees sums over clients, never the update of a single one."""

    aggregation: bool = Field(False, description="Mask updates and statistics so that only sums are visible.")
    range: float = Field(
        1.0,
        gt=0,
        description="Maximum absolute value of one value of an update; larger ones are clipped. With "
        'privacy.unit = "client", privacy.clip_norm is used instead.',
    )
    max_dropout: float = Field(
        0.3,
        ge=0,
        lt=0.5,
        description="Fraction of a cohort that may drop out during a round before the round fails.",
    )
    max_colluding: float = Field(
        0.3,
        ge=0,
        lt=0.5,
        description="Fraction of clients that may collude with the server without learning another client's "
        "update.",
    )


class AttackConfig(Section):
    """Simulated malicious clients, to measure their effect (docs/robustness.md)."""

    kind: str = Field("none", description="The attack; docs/robustness.md lists them.")
    fraction: float = Field(0.2, gt=0, lt=1, description="Fraction of clients that are malicious.")
    args: Arguments = Field(default_factory=dict, description="Arguments of the attack.")


class StrategyConfig(Section):
    """How the server computes the next model from the clients' updates."""

    name: str = Field(
        "FedAvg", description="Name of a strategy (docs/strategies.md), or package.module:Class."
    )
    args: Arguments = Field(default_factory=dict, description="Arguments of the strategy.")
    clients_per_round: int = Field(
        0, ge=0, description="Clients sampled for training each round; 0 means all."
    )
    sampling: Literal["fixed", "poisson"] = Field(
        "fixed",
        description="How they are sampled. fixed: exactly this many. poisson: each client independently, "
        "this many on average.",
    )
    evaluate_clients: int = Field(
        0, ge=0, description="Clients sampled for evaluation each round; 0 means all."
    )


class ServerConfig(Section):
    """When the server evaluates, and when a round counts."""

    evaluate_every: int = Field(1, ge=1, description="Rounds between evaluations.")
    min_success: float = Field(
        0.5, gt=0, le=1, description="Fraction of the cohort that must reply for a round to count."
    )
    round_retries: int = Field(
        0,
        ge=0,
        description="How many times to ask the clients that did not reply again, while fewer than "
        "min_success have replied.",
    )


class ResourcesConfig(Section):
    """Workers, memory and transport of a simulation."""

    backend: Literal["ray", "serial"] = Field(
        "ray", description="Where clients run. ray: in worker processes. serial: in this process."
    )
    transport: Literal["direct", "grpc"] = Field(
        "direct",
        description="How the server reaches the clients. direct: through Ray. grpc: each client over its own "
        "gRPC stream with mutual TLS, as in a pilot; each client then trains and replies separately.",
    )
    ray_address: str = Field(
        "",
        description="Ray cluster to join: host:port, or auto for the cluster that this machine belongs to. "
        "Empty starts Ray on this machine only.",
    )
    compression: Literal["none", "zstd"] = Field(
        "none",
        description="Lossless compression of gRPC messages. zstd shrinks statistics, and weights with many "
        "equal values; dense weights shrink by a tenth at most.",
    )
    workers: int = Field(
        0, ge=0, description="Ray workers; 0 means one per core, or fewer if memory or GPUs are short."
    )
    threads_per_worker: int = Field(
        1, ge=1, description="TensorFlow threads per worker; changing it can change the last bits of results."
    )
    clients_per_chunk: int = Field(
        0,
        ge=0,
        description="Clients sent to a worker at a time. 0 splits a phase into about 32 chunks, or 8 when "
        "stacked. Results do not depend on the number of workers.",
    )
    execution_mode: Literal["auto", "stacked", "sequential"] = Field(
        "auto",
        description="stacked trains many clients of a small model in one call; sequential trains them one by "
        "one. auto times both before the first round and records the faster one in the run's config.toml.",
    )
    stack_mb: int = Field(256, ge=1, description="Memory limit of one stack of clients, in MB per worker.")
    gpus_per_worker: float = Field(
        0.0, ge=0, description="Fraction of a GPU per worker, e.g. 0.25 for four workers on one GPU."
    )
    worker_memory_mb: int = Field(
        0,
        ge=0,
        description="Memory limit per worker in MB; a worker above it is replaced after its chunk. 0 divides "
        "four fifths of the machine's memory equally.",
    )
    max_retries: int = Field(
        2, ge=0, description="How many times a failed chunk is retried on another worker."
    )
    timeout_s: float = Field(3600.0, gt=0, description="Time limit of one phase of a round, in seconds.")


class OutputConfig(Section):
    """What a run writes."""

    directory: str = Field("runs", description="Folder in which each run creates its run folder.")
    compare: bool = Field(False, description="Also train local-only and centralised models (`--compare`).")
    bootstrap: int = Field(
        500, ge=0, description="Bootstrap resamples for the 95 % intervals of test metrics; 0 computes none."
    )
    checkpoint_every: int = Field(
        1, ge=0, description="Rounds between checkpoints (for `shoal resume`); 0 writes none."
    )
    audit: bool = Field(
        False,
        description="Also write audit.jsonl, a hash-chained log of all messages (docs/handover.md). Pilots "
        "always do.",
    )


class Scenario(Section):
    """One scenario file."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.-]+$", description="Name of the scenario.")
    description: str = Field(
        "", pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", description="One sentence, shown in lists and reports."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of all random draws.")] = 1
    data: DataConfig
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    update: UpdateConfig = UpdateConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    secure: SecureConfig = SecureConfig()
    attack: AttackConfig = AttackConfig()
    strategy: StrategyConfig = StrategyConfig()
    server: ServerConfig = ServerConfig()
    resources: ResourcesConfig = ResourcesConfig()
    output: OutputConfig = OutputConfig()
