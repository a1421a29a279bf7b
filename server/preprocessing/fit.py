"""Fits the preprocessing from clients' statistics, and applies the server's part of the disclosure rule."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.common.config import PreprocessingConfig
from shoal.common.errors import DataError, DisclosureError
from shoal.common.preprocessing import PreprocessingSpec, Statistics, spec
from shoal.common.preprocessing.aggregates import Moments, NumericStatistics
from shoal.common.schema import Schema


def fit(statistics: Sequence[Statistics], schema: Schema, config: PreprocessingConfig) -> PreprocessingSpec:
    """Merge clients' statistics into one preprocessing.

    Args:
        statistics: of each client; the order does not affect the result.
        schema: names and kinds of the columns.
        config: what to do, and min_sites and min_count.

    Raises:
        DisclosureError: fewer than min_sites clients reported anything, or one reported too much.
        DataError: nothing is left to learn from.
    """
    for part in statistics:
        part.check(config.min_count)
    return fit_total(Statistics.merge(statistics), schema, config)


def fit_total(total: Statistics, schema: Schema, config: PreprocessingConfig) -> PreprocessingSpec:
    """Return the preprocessing fitted from the statistics of all clients together.

    Raises:
        DisclosureError, DataError: as `fit` does.
    """
    if total.sites < config.min_sites:
        raise DisclosureError(
            f"{total.sites} clients could report statistics (at least preprocessing.min_count = "
            f"{config.min_count} training rows), preprocessing.min_sites = {config.min_sites} are required",
            hint="fewer sites would reveal one of them; lower min_sites only if that is allowed",
        )
    fitted = PreprocessingSpec(
        numeric=_numeric(total, schema, config),
        categorical=_categorical(total, schema, config),
        tokens=_tokens(total, schema, config),
        image=_image(total, schema),
        sequence=_sequence(total, schema),
    )
    if not all(fitted.input_spec.shape):
        raise DataError(
            "no column is left after preprocessing: none was reported by preprocessing.min_sites = "
            f"{config.min_sites} clients",
            hint="lower preprocessing.min_sites or min_count, if the data's owners agree",
        )
    return fitted


def class_weights(total: Statistics, schema: Schema) -> dict[int, float] | None:
    """Return rows / (classes · rows of the class) by class index, from the clients' total.

    `None` if no client reported some class: then nothing can be balanced.
    """
    counts = total.classes
    if not counts or not all(counts):
        return None
    return {k: sum(counts) / (schema.num_classes * n) for k, n in enumerate(counts)}


def _numeric(total: Statistics, schema: Schema, config: PreprocessingConfig) -> tuple[spec.Numeric, ...]:
    fitted = []
    for name in schema.names("numeric"):
        column = total.numeric.get(name, NumericStatistics())
        if column.sites >= config.min_sites:
            shift, scale = _scaling(column.moments, config)
            indicator = config.missing_indicator and column.missing > 0
            fitted.append(spec.Numeric(name, _fill(column, config), shift, scale, indicator))
    return tuple(fitted)


def _fill(column: NumericStatistics, config: PreprocessingConfig) -> float:
    if config.impute == "zero":
        return 0.0
    return column.sketch.quantile(0.5) if config.impute == "median" else column.moments.mean


def _scaling(moments: Moments, config: PreprocessingConfig) -> tuple[float, float]:
    if config.scale == "standard":
        return moments.mean, moments.std or 1.0
    if config.scale == "minmax":
        return moments.low, (moments.high - moments.low) or 1.0
    return 0.0, 1.0


def _categorical(
    total: Statistics, schema: Schema, config: PreprocessingConfig
) -> tuple[spec.Categorical, ...]:
    fitted = []
    for name in schema.names("categorical"):
        if name in total.categorical:
            kept = total.categorical[name].counts.most_common(
                config.max_categories, min_sites=config.min_sites
            )
            if kept:
                fitted.append(spec.Categorical(name, kept))
    return tuple(fitted)


def _tokens(total: Statistics, schema: Schema, config: PreprocessingConfig) -> spec.Tokens | None:
    for name in schema.names("text"):
        # two ids are taken: padding and unknown
        kept = total.tokens[name].most_common(config.vocabulary - 2, min_sites=config.min_sites)
        if not kept:
            raise DataError(
                f'no word of "{name}" was reported by preprocessing.min_sites = {config.min_sites} clients',
                hint="lower preprocessing.min_sites or min_count, if the data's owners agree",
            )
        return spec.Tokens(name, kept, config.tokens)
    return None


def _image(total: Statistics, schema: Schema) -> spec.Image | None:
    for column in schema.columns:
        if column.kind == "image":
            return spec.Image(column.name, column.shape, 1 / 255 if total.images[column.name] else 1.0)
    return None


def _sequence(total: Statistics, schema: Schema) -> spec.Sequence | None:
    for column in schema.columns:
        if column.kind == "sequence":
            channels = total.sequences[column.name]
            if not all(channel.count for channel in channels):
                raise DataError(f'no client reported all channels of "{column.name}"')
            mean = tuple(channel.mean for channel in channels)
            return spec.Sequence(column.name, column.shape, mean, tuple(c.std or 1.0 for c in channels))
    return None
