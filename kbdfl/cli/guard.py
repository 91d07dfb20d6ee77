"""Options of a server that say who may come in, and how often."""

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import ssl

    from kbdfl.server.rates import Rates

RATE = "60/minute, or none"


@dataclass(frozen=True, slots=True)
class Guard:
    """What the options say; None is the default for the address that is listened on."""

    enrolment: str | None
    admin_token_file: Path | None
    limit_enrol: str | None
    limit_check_in: str | None
    limit_login: str
    trusted_proxy: str | None
    tls_certificate: Path | None
    tls_key: Path | None

    def __post_init__(self) -> None:
        """Raises ConfigError for a proxy that no connection could be from: addresses are compared, not names."""
        from kbdfl.errors import ConfigError

        if self.trusted_proxy is not None:
            try:
                ipaddress.ip_address(self.trusted_proxy)
            except ValueError:
                raise ConfigError(
                    f"trusted_proxy must be an IP address, got {self.trusted_proxy!r:.80}"
                ) from None

    def near(self, host: str) -> bool:
        """Whether only this machine can reach a server on `host`: on loopback, and behind no proxy."""
        if self.trusted_proxy is not None:
            return False
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def enrolment_on(self, host: str) -> str:
        """open or token: open only where it is asked for, or nobody else can come."""
        return self.enrolment or ("open" if self.near(host) else "token")

    def rates_on(self, host: str) -> "Rates":
        """The limits; a fleet on this machine has one address and no patience, so there they are off."""
        from kbdfl.server.rates import NONE, Rates

        near = self.near(host)
        return Rates(
            enrol=self.limit_enrol or (NONE if near else "60/minute"),
            check_in=self.limit_check_in or (NONE if near else "120/minute"),
            login=self.limit_login,
        )

    def tls(self) -> "ssl.SSLContext | None":
        """How connections are encrypted; None if they are not. Raises ConfigError for files that are not to be used."""
        from kbdfl.errors import ConfigError
        from kbdfl.server.connections import tls_context

        if self.tls_certificate is not None:
            return tls_context(self.tls_certificate, self.tls_key)
        if self.tls_key is not None:
            raise ConfigError("--tls-key must come with --tls-certificate, the chain that it is the key of")
        return None


def guard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `Guard`, which the command gets as `guard`."""
    options = [
        click.option(
            "--enrolment",
            type=click.Choice(["open", "token"]),
            help="Who may enrol: everybody, or who has a token of `kbdfl admin tokens`. [open on loopback, else token]",
        ),
        click.option(
            "--admin-token-file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="Holds an administrator's token. Others are made by `kbdfl admin`.",
        ),
        click.option(
            "--limit-enrol",
            metavar="RATE",
            help=f"Enrolments of an address: {RATE}. [none on loopback, else 60/minute]",
        ),
        click.option(
            "--limit-check-in",
            metavar="RATE",
            help="Check-ins of a device. [none on loopback, else 120/minute]",
        ),
        click.option(
            "--limit-login",
            metavar="RATE",
            default="10/minute",
            show_default=True,
            help="An address's attempts to be an administrator.",
        ),
        click.option(
            "--trusted-proxy",
            metavar="ADDRESS",
            help="A reverse proxy whose X-Forwarded-For and -Proto are believed.",
        ),
        click.option(
            "--tls-certificate",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Serve HTTPS with this PEM certificate chain.",
        ),
        click.option(
            "--tls-key",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Its key, if it is in a file of its own.",
        ),
    ]

    @functools.wraps(command)
    def guarded(**options: object) -> object:
        guard = Guard(**{field.name: options.pop(field.name) for field in fields(Guard)})  # type: ignore[arg-type]
        return command(guard=guard, **options)

    for option in reversed(options):
        guarded = option(guarded)
    return guarded
