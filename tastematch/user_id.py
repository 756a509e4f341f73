"""A user id on the command line, as strict as everywhere else: `1_0` is not user 10."""

import click

from shared.parsing import ParseError, parse_id


class UserId(click.ParamType[int]):
    name = "id"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return parse_id(str(value))
        except ParseError as error:
            self.fail(str(error), param, ctx)
