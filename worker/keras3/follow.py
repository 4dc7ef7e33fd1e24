"""Who leaves the disk to the chief: callbacks ask by their model, which knows the strategy that it trains under."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..collective import spans_workers

if TYPE_CHECKING:
    import tensorflow as tf


def follows(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this worker leaves it to the chief to touch the disk."""
    return strategy is not None and spans_workers(strategy) and not strategy.extended.should_checkpoint


def strategy_of(callback: Any) -> tf.distribute.Strategy | None:
    """Under which the model of a callback trains."""
    return getattr(callback.model, "distribute_strategy", None)


def on_chief(stock: Any) -> Any:
    """A method of a callback that does nothing on a worker that follows."""

    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        if not follows(strategy_of(self)):
            stock(self, *args, **kwargs)

    return method
