"""The typed, frozen sections of a scenario; docs/config.md is generated from this file.

Only what one section can check by itself is checked here. Names that a registry resolves (data
sources, models, strategies) and whatever needs the data are checked by `simulations/checks/scenario.py`.
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
    """Base of all sections: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the rows come from and what is learnt from them."""

    source: str = Field(
        description="A built-in data set (`shoal data --list` names them), a format of your own "
        "files (csv, parquet, npz, text, images), or package.module:function."
    )
    path: str | None = Field(
        None, description="File or folder of your own data, relative to the scenario file."
    )
    client_column: str | None = Field(
        None, description="Column that says which site a row belongs to; it is never an input."
    )
    label: str | None = Field(None, description="Column to predict.")
    positive: str | None = Field(
        None, description="Makes the task binary: this label value against all others."
    )
    task: Literal["auto", "binary", "multiclass", "regression"] = Field(
        "auto", description="What is learnt; auto reads it from the labels."
    )
    include: tuple[str, ...] = Field((), description="Input columns; empty means all the others.")
    exclude: tuple[str, ...] = Field((), description="Columns that are not inputs.")
    text_column: str | None = Field(None, description="Column that holds text to learn from.")
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Share of each client's rows held out for the final test."
    )
    validation_fraction: float = Field(
        0.1,
        ge=0,
        lt=0.9,
        description="Share of each client's rows that choose the best round; 0 uses the last round.",
    )
    args: Arguments = Field(
        default_factory=dict, description="Arguments of the data source, see its data card."
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
    """How inputs are prepared, from statistics of which only aggregates leave a client."""

    min_sites: int = Field(
        2,
        ge=1,
        description="A category or token is kept only if this many clients reported it; fewer "
        "answering clients than this yields no statistics at all.",
    )
    min_count: int = Field(
        5,
        ge=1,
        description="A client reports a category, token or statistic only if at least this many "
        "of its rows stand behind it.",
    )
    max_clients: int = Field(
        10_000, ge=1, description="Clients asked for statistics at most; of more, as many are drawn."
    )
    impute: Literal["mean", "median", "zero"] = Field("median", description="What replaces a missing number.")
    missing_indicator: bool = Field(True, description="Add an input that says that a number was missing.")
    scale: Literal["standard", "minmax", "none"] = Field("standard", description="How numbers are scaled.")
    max_categories: int = Field(
        64, ge=1, le=10_000, description="Most one-hot inputs for one categorical column."
    )
    vocabulary: int = Field(10_000, ge=3, description="Token ids at most, with padding and unknown (text).")
    tokens: int = Field(40, ge=1, description="Tokens a row is cut or padded to (text).")


class PartitionConfig(Section):
    """How rows are spread over clients."""

    scheme: Literal["natural", "iid", "dirichlet", "shards", "quantity", "size"] = Field(
        "natural", description="natural takes the sites that the data has."
    )
    clients: int | None = Field(
        None, ge=1, description="Number of clients; natural splits each site further to reach it."
    )
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration: smaller means more label skew.")
    shards_per_client: int = Field(2, ge=1, description="Label-sorted shards a client gets (scheme shards).")
    skew: Literal["linear", "exponential", "square"] = Field(
        "linear", description="How sizes grow over clients (scheme quantity)."
    )
    max_rows: int | None = Field(
        None, ge=1, description="Most rows a client holds (scheme size cuts sites to it)."
    )
    min_rows: int = Field(10, ge=2, description="Clients with fewer rows are left out, and named.")

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
        description="Keras dtype policy: mixed ones compute in 16 bits and keep weights in 32, which pays "
        "on a GPU.",
    )


class EarlyStoppingConfig(Section):
    """When to stop before the last round."""

    patience: int = Field(
        0, ge=0, description="Evaluations without improvement before stopping; 0 never stops."
    )
    min_delta: float = Field(0.0, ge=0, description="Smallest change that counts as improvement.")


class TrainingConfig(Section):
    """How each client trains, and for how many rounds."""

    rounds: int = Field(20, ge=1, description="Federated rounds.")
    local_epochs: int = Field(1, ge=1, description="Passes over a client's rows in one round.")
    local_steps: int | None = Field(
        None, ge=1, description="Optimisation steps in one round, instead of local_epochs."
    )
    batch_size: int = Field(32, ge=1, description="Rows in an optimisation step.")
    optimizer: Literal[OPTIMIZERS] = Field("sgd", description="Keras optimizer of the clients.")  # type: ignore[valid-type]
    learning_rate: float = Field(0.1, gt=0, description="Learning rate of the clients' optimizer.")
    optimizer_args: Arguments = Field(
        default_factory=dict, description="Further arguments of the optimizer, e.g. momentum."
    )
    schedule: Literal["constant", "cosine", "exponential", "step"] = Field(
        "constant", description="How the learning rate goes down over rounds."
    )
    decay: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Factor a round (exponential), a step (step), or at the end (cosine).",
    )
    decay_rounds: int = Field(10, ge=1, description="Rounds in one step (schedule step).")
    loss: str = Field("auto", description="Keras loss by name; auto takes the task's usual one.")
    loss_args: Arguments = Field(default_factory=dict, description="Arguments of the loss.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced weighs classes by the inverse of their federated counts."
    )
    metrics: tuple[Literal[METRICS], ...] = Field(  # type: ignore[valid-type]
        (), description="Metrics to report; empty takes the task's usual ones."
    )
    monitor: Literal[(*METRICS, "auto")] = Field(  # type: ignore[valid-type]
        "auto", description="Metric that chooses the best round and stops early."
    )
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()


class UpdateConfig(Section):
    """What each client does to its update before it leaves, in this order."""

    clip_norm: float | None = Field(
        None, gt=0, description="Largest L2 norm of a client's whole update; larger ones are scaled down."
    )
    noise_stddev: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of Gaussian noise added to every number of an update. Alone it is "
        "no promise of differential privacy.",
    )
    compress: Literal["none", "float16", "int8"] = Field(
        "none",
        description="How an update travels: float16 rounds to 2 bytes a number, int8 at random and without "
        "bias to 1.",
    )


class PrivacyConfig(Section):
    """Differential privacy: whom the promise protects, and the noise that keeps it (docs/privacy.md)."""

    unit: Literal["none", "client", "local", "record"] = Field(
        "none",
        description="Whom the promise protects: client is all that one client holds, with noise at the "
        "server; local the same, with noise at the client, against the server too; record is one row, with "
        "noise in each step of local training (DP-SGD).",
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        description="Budget that all rounds together may spend; the noise is solved for, unless it is given "
        "too.",
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="Chance with which the promise may fail.")
    noise_multiplier: float | None = Field(
        None, gt=0, description="Standard deviation of the noise, as a multiple of clip_norm."
    )
    clip_norm: float = Field(
        1.0,
        gt=0,
        description="Largest L2 norm of a client's update (client, local) or of a row's gradient (record).",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="adaptive moves clip_norm to a quantile of the updates' norms (unit client)."
    )
    target_quantile: float = Field(
        0.5, gt=0, lt=1, description="Share of updates that adaptive clipping leaves whole."
    )
    weights: Literal["uniform", "bounded"] = Field(
        "uniform",
        description="How much a client counts (unit client): all the same, or by rows up to "
        "full_weight_rows.",
    )
    full_weight_rows: int = Field(
        100, ge=1, description="Training rows from which a client counts fully (weights bounded)."
    )
    accountant: Literal["rdp", "pld"] = Field(
        "rdp",
        description="How epsilon is added up: by Rényi divergences, or by privacy loss distributions, which "
        "is tighter and slower.",
    )
    statistics_epsilon: float | None = Field(
        None,
        gt=0,
        description="Part of the budget that the statistics of preprocessing may spend; without it they have "
        "no noise, and the report says so.",
    )
    microbatch: int = Field(
        256, ge=1, description="Rows whose gradients are held at once (unit record); it changes speed only."
    )


class SecureConfig(Section):
    """Secure aggregation: the server learns sums over clients, and nothing of a single one."""

    aggregation: bool = Field(False, description="Whether updates and statistics are summed under masks.")
    range: float = Field(
        1.0,
        gt=0,
        description="Largest size of one number of an update; larger ones are cut to it. With privacy.unit = "
        '"client" it is privacy.clip_norm.',
    )
    max_dropout: float = Field(
        0.3,
        ge=0,
        lt=0.5,
        description="Share of a cohort that may be lost in the middle of a round without losing the round.",
    )
    max_colluding: float = Field(
        0.3,
        ge=0,
        lt=0.5,
        description="Share of clients that may work with the server without learning another's update.",
    )


class AttackConfig(Section):
    """Clients that misbehave, to see what that does (docs/robustness.md)."""

    kind: str = Field("none", description="What the malicious clients do; docs/robustness.md lists it.")
    fraction: float = Field(0.2, gt=0, lt=1, description="Share of the clients that are malicious.")
    args: Arguments = Field(default_factory=dict, description="Arguments of the attack.")


class StrategyConfig(Section):
    """How the server turns updates into the next model."""

    name: str = Field("FedAvg", description="A strategy of Flower by name, or package.module:Class.")
    args: Arguments = Field(default_factory=dict, description="Arguments of the strategy.")
    clients_per_round: int = Field(0, ge=0, description="Clients drawn for training in a round; 0 means all.")
    sampling: Literal["fixed", "poisson"] = Field(
        "fixed",
        description="How they are drawn: fixed takes exactly so many, poisson each client by itself, so many "
        "in the mean.",
    )
    evaluate_clients: int = Field(
        0, ge=0, description="Clients drawn for evaluation in a round; 0 means all."
    )


class ServerConfig(Section):
    """The round loop."""

    evaluate_every: int = Field(1, ge=1, description="Rounds between evaluations.")
    min_success: float = Field(
        0.5, gt=0, le=1, description="Share of the cohort that must answer for a round to count."
    )
    round_retries: int = Field(
        0,
        ge=0,
        description="Times that the clients without an answer are asked again, while fewer than min_success "
        "have answered.",
    )


class ResourcesConfig(Section):
    """What the simulation may use of the machine."""

    backend: Literal["ray", "serial"] = Field(
        "ray", description="ray spawns worker processes; serial runs clients in this process."
    )
    transport: Literal["direct", "grpc"] = Field(
        "direct",
        description="How the server reaches clients in Ray workers: directly, or each over a gRPC stream of "
        "its own with mutual TLS, as sites of a pilot are; each then trains alone and answers alone.",
    )
    ray_address: str = Field(
        "",
        description="A Ray cluster to join, host:port or auto for the one that this machine is a node of; "
        "empty starts a Ray on this machine alone.",
    )
    compression: Literal["none", "zstd"] = Field(
        "none",
        description="How messages over gRPC are packed. zstd keeps the bits; it shrinks statistics, and "
        "weights of which many are equal, but dense weights by a tenth at most.",
    )
    workers: int = Field(
        0, ge=0, description="Ray workers; 0 takes one a core, fewer where memory or GPUs are short."
    )
    threads_per_worker: int = Field(
        1, ge=1, description="TensorFlow threads of a worker; more can change the last bits."
    )
    clients_per_chunk: int = Field(
        0,
        ge=0,
        description="Clients a worker takes at a time; 0 cuts a phase into about 32 chunks, or 8 of stacks. "
        "Results do not depend on the number of workers.",
    )
    path: Literal["auto", "stacked", "sequential"] = Field(
        "auto",
        description="stacked trains many clients of a small model at once; auto measures both before the "
        "first round and writes the choice into the run's config.toml.",
    )
    stack_mb: int = Field(256, ge=1, description="Memory in MB that a stack of clients may take in a worker.")
    gpus_per_worker: float = Field(
        0.0, ge=0, description="Share of a GPU that a worker takes, e.g. 0.25 for four workers on one."
    )
    worker_memory_mb: int = Field(
        0,
        ge=0,
        description="A worker that holds more is replaced after its chunk; 0 allows each an equal share of "
        "four fifths of the machine's memory.",
    )
    max_retries: int = Field(2, ge=0, description="Times a chunk is tried again elsewhere.")
    timeout_s: float = Field(3600.0, gt=0, description="Seconds one phase of a round may take.")


class OutputConfig(Section):
    """What is left behind."""

    directory: str = Field("runs", description="Folder that gets one folder for each run.")
    compare: bool = Field(False, description="Also train local-only and centralised models (`--compare`).")
    bootstrap: int = Field(
        500, ge=0, description="Resamples for the 95 % intervals of test metrics; 0 gives none."
    )
    checkpoint_every: int = Field(
        1, ge=0, description="Rounds from one checkpoint to the next (`shoal resume`); 0 writes none."
    )
    audit: bool = Field(
        False,
        description="Also write audit.jsonl, a chained log of all messages (docs/handover.md); pilots "
        "always do.",
    )


class Scenario(Section):
    """One scenario file."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$", description="Name of the scenario.")
    description: str = Field("", description="One sentence for lists and reports.")
    seed: Annotated[int, Field(ge=0, lt=2**31, description="The seed of every draw.")] = 1
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
