"""What is wrong with an option's value, in our words: typer passes on those of pydantic, which checks it."""

from typing import Any

import typer
from pydantic import BaseModel, ValidationError
from typer.core import TyperGroup

from protocol.words import wrongs_in


class Commands(TyperGroup):
    """The commands, and those of the groups among them."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; the values of its options are checked on the way."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = "; ".join(map(str, wrongs_in(error.__cause__, BaseModel)))
            raise
