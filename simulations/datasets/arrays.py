"""The user's own arrays: an .npz file with x, y and optionally clients."""

from __future__ import annotations

from zipfile import BadZipFile

import numpy as np
import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations.datasets.loading import existing_path, spread
from shoal.simulations.datasets.raw import Raw


def load_npz(scenario: Scenario) -> Population:
    """Load x (rows, features), (rows, steps, channels) or (rows, height, width, channels); y; clients.

    Raises:
        UnreadableDataError: an array is missing, contains Python objects, or does not fit the others.
    """
    path = existing_path(scenario, folder=False)
    try:
        with path.open("rb") as file:  # which numpy leaves open if it is broken
            found = np.load(file, allow_pickle=False)
            single = isinstance(found, np.ndarray)
            arrays = {} if single else {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UnreadableDataError(
            f"{path} cannot be read as .npz: {type(error).__name__}",
            hint="save it with np.savez(file, x=…, y=…, clients=…), without Python objects",
        ) from None
    if single:
        raise UnreadableDataError(
            f"{path} holds a single array (.npy); expected an .npz file with x, y and optionally clients",
            hint="save them together with np.savez(file, x=…, y=…, clients=…)",
        )
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise UnreadableDataError(
            f"{path} lacks the array {' and '.join(missing)}; it contains {', '.join(arrays) or 'none'}"
        )
    return spread(to_raw(arrays["x"], arrays["y"], arrays.get("clients"), str(path)), scenario)


def to_raw(x: np.ndarray, y: np.ndarray, clients: np.ndarray | None, source: str, name: str = "x") -> Raw:
    """Check that arrays fit each other, and combine them.

    Args:
        x, y, clients: as in `load_npz`.
        source: the origin of the arrays, for error messages.
        name: name of the input, or the start of the names of the inputs.

    Raises:
        UnreadableDataError: shapes or dtypes do not fit.
    """
    if 0 in (x.ndim, y.ndim, np.ndim(clients) if clients is not None else 1):
        raise UnreadableDataError(f"{source}: x, y and clients must be arrays with one entry per row")
    sizes = {"x": len(x), "y": len(y)} | ({} if clients is None else {"clients": len(clients)})
    if len(set(sizes.values())) != 1 or y.ndim != 1:
        shapes = f"x {x.shape}, y {y.shape}" + ("" if clients is None else f", clients {clients.shape}")
        raise UnreadableDataError(
            f"{source}: {shapes}; expected equal first dimensions, and one dimension for y"
        )
    if x.ndim not in (2, 3, 4):
        raise UnreadableDataError(
            f"{source}: x has shape {x.shape}; expected (rows, features), (rows, steps, channels) or "
            "(rows, height, width, channels)"
        )
    if x.dtype.kind not in "biuf":
        raise UnreadableDataError(f"{source}: x has dtype {x.dtype}; expected numbers")
    scalars: dict[str, np.ndarray] = {"y": y} | ({} if clients is None else {"client": clients})
    site = None if clients is None else "client"
    if x.ndim == 2:
        width = len(str(x.shape[1] - 1))
        scalars |= {f"{name}{i:0{width}}": x[:, i] for i in range(x.shape[1])}
        return Raw(pa.table(scalars), label="y", site=site)
    tensor = x if x.dtype == np.uint8 and x.ndim == 4 else x.astype(np.float32)
    return Raw(pa.table(scalars), label="y", site=site, tensors={name: tensor})
