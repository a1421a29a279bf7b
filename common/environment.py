"""The environment variables of a process that trains."""

from __future__ import annotations

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # TensorFlow takes all memory of a GPU otherwise, and workers that share one fail.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
}

# What the command line sets for itself and its children, each only where the user has not set it.
PROCESS = QUIET | {
    # Leave CUDA_VISIBLE_DEVICES as it is for workers without a GPU, which Ray otherwise warns about.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "KERAS_BACKEND": "tensorflow",
    "GRPC_VERBOSITY": "ERROR",
}


SEARCHED = "SHOAL_SEARCHED"  # where shoal was started: there a worker looks up package.module:function


def worker_environment(threads: int) -> dict[str, str]:
    """Return the variables that a worker's libraries read when they are imported.

    Args:
        threads: TensorFlow's threads; one keeps the order of float sums, and so the bits.
    """
    return QUIET | {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
