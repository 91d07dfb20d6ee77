"""`kbdfl bench`: our kernels beside their peers on the same arrays, interleaved; and what a fleet and a server bear."""

import click

from kbdfl.cli.bench import client, fleet, kernels, secagg, server
from kbdfl.cli.common import Group


@click.group(cls=Group)
def bench() -> None:
    """Measure: training and codec beside their peers, interleaved; and what a fleet, secure sums and a server take."""


bench.add_command(client.client)
bench.add_command(fleet.fleet)
bench.add_command(kernels.kernels)
bench.add_command(secagg.secagg)
bench.add_command(server.server)
