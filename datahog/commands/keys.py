"""`keys`: creates, lists and revokes API keys."""

import argparse
import re
import sys

from persistence.api_keys import ApiKeys
from persistence.errors import NotFound, Unavailable
from persistence.records.tenants import DEFAULT_TENANT, PATTERN
from specs.operations import scopes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    create = actions.add_parser("create", help="create a key and print it once: only its hash is stored")
    create.add_argument("--name", required=True, help="the owner or the purpose of the key")
    create.add_argument(
        "--scope", required=True, action="append", choices=scopes(), help="a scope of the key; repeat it for each scope"
    )
    create.add_argument(
        "--tenant", type=_tenant, default=DEFAULT_TENANT, help="the tenant whose requests it can use [%(default)s]"
    )
    create.add_argument(
        "--unlimited",
        action="store_true",
        help="no rate limit and no quota of open requests; for DATAHOG_AGGREGATOR_KEY, which calls for all tenants",
    )
    actions.add_parser("list", help="list all keys: id, scopes, tenant, limits, created, revoked, name")
    revoke = actions.add_parser("revoke", help="revoke a key; it takes effect within five seconds")
    revoke.add_argument("id", help="the id that `list` shows: the part of the key between dh_ and the next _")


def run(keys: ApiKeys, arguments: argparse.Namespace) -> int:
    """Runs the chosen action; returns 1 if the key does not exist or DynamoDB is away, else 0."""
    try:
        match arguments.action:
            case "create":
                print(
                    keys.create(arguments.name, arguments.scope, tenant=arguments.tenant, unlimited=arguments.unlimited)
                )
            case "list":
                _list(keys)
            case "revoke":
                keys.revoke(arguments.id)
    except (NotFound, Unavailable) as error:
        print(f"datahog keys: {error}", file=sys.stderr)
        return 1
    return 0


def _list(keys: ApiKeys) -> None:
    for key in keys.list():
        revoked = f"revoked {key.revoked_at}" if key.revoked_at else "-"
        limits = "unlimited" if key.unlimited else "limited"
        scopes = ",".join(sorted(key.scopes))
        print(key.key_id, scopes, key.tenant, limits, key.created_at, revoked, ascii(key.name), sep="\t")


def _tenant(text: str) -> str:
    if not re.fullmatch(PATTERN, text):
        raise argparse.ArgumentTypeError("1 to 64 letters, digits, '_', '.' and '-', beginning with a letter or digit")
    return text
