"""Names used in messages: records, and the metrics of a client's reply."""

from __future__ import annotations

from typing import Final

# Records of requests and replies.
ARRAYS: Final = "arrays"  # request: the model's shared weights; reply: the encoded update
FROZEN: Final = "frozen"  # request: weights that training never changes, for clients that lack them
SERVER_STATE: Final = "server-state"  # request: arrays of the algorithm's server half
EXTRA: Final = "extra"  # reply: arrays of the algorithm's client half, sent with the update
CONFIG: Final = "config"  # request: everything that is not an array
SECURE: Final = "secure"  # request: the session of secure aggregation, and the fields of its stage
METRICS_RECORD: Final = "metrics"  # reply: single numbers
CLIENTS: Final = "clients"  # reply: a row for each client, where one reply stands for several
AUTOTUNE: Final = "autotune"  # reply: why an execution mode is ruled out
SUMMAND: Final = "summand"  # reply: one vector of integers, laid out by common/preprocessing/sums
KEYS: Final = "keys"
SHARES: Final = "shares"
MASKED: Final = "masked"
UNMASK: Final = "unmask"
STATISTICS_PREFIX: Final = "statistics"  # reply: records of aggregates begin with it

# Records of a client's `Context.state`.
CLIENT_STATE: Final = "client-state"  # arrays of the algorithm's client half, and personal weights
SECURE_SESSION: Final = "secure-session"  # secrets of an open session

# Numbers in replies.
EXAMPLES: Final = "num-examples"
SECONDS: Final = "seconds"
TRAIN_LOSS: Final = "train_loss"  # the key that stock QFedAvg reads
STEPS: Final = "steps"
TRACES: Final = "traces"  # graphs that the client's process has traced so far
UPDATE_BYTES: Final = "update-bytes"  # length of the encoded update, where a mean is sent in its place
WEIGHT: Final = "weight"  # weight of a client's update, in [0, 1], under privacy.unit = "client"
WITHIN: Final = "within-clip"  # 1/2 for an update within the clipping norm, -1/2 for a clipped one
EPSILON: Final = "epsilon"  # spent on the client's rows so far
EPSILON_NEXT: Final = "epsilon-next"  # what it will have spent after another round
