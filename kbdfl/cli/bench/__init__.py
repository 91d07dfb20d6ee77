"""`kbdfl bench`: our kernels beside their peers on the same arrays, interleaved; and what a fleet and a server bear."""

import click

from kbdfl.cli.bench import client, fleet, kernels, secagg, server


@click.group()
def bench() -> None:
    """Measure beside peers: medians, ranges and ratios from one interleaved run."""


bench.add_command(client.client)
bench.add_command(fleet.fleet)
bench.add_command(kernels.kernels)
bench.add_command(secagg.secagg)
bench.add_command(server.server)
