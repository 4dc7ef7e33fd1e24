"""What stands in for one function of a library, and how to know that it is the function that it was made for."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Replacement(NamedTuple):
    """A function of Keras, the parameters that it must have, and what makes another one out of it."""

    owner: Any
    name: str
    parameters: tuple[str, ...]
    make: Callable[[Any], Any]

    def fits(self) -> bool:
        stock = getattr(self.owner, self.name, None)
        return stock is not None and tuple(inspect.signature(stock).parameters) == self.parameters

    def apply(self) -> None:
        stock = getattr(self.owner, self.name)
        setattr(self.owner, self.name, functools.wraps(stock)(self.make(stock)))

    def __str__(self) -> str:
        return f"{self.owner.__name__.rpartition('.')[2]}.{self.name}"
